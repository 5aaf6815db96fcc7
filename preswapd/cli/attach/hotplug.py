# SPDX-License-Identifier: BSD-3-Clause
"""A device's disk in a running QEMU, plugged and unplugged through its monitor."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click

from preswapd.cli.attach.disk import SCSI, Disk, Export, Properties
from preswapd.errors import PartialError, PreswapError, RefusedError
from preswapd.qmp import CommandFailedError, Event, Monitor, MonitorError

# What was just added is hardly in use yet.
UNDO_SECONDS = 10.0
# A guest that works normally lets go sooner; nothing is said before that.
SILENT_SECONDS = 1.0


class Hotplug:
    """One device and one QEMU."""

    def __init__(self, monitor: Monitor, disk: Disk) -> None:
        self.monitor = monitor
        self.disk = disk

    # --- what is there ---

    def device(self) -> str | None:
        """The path of the disk in QEMU's device tree, however it was attached and is named."""
        for block in self.monitor.execute("query-block"):
            # One without it (-drive if=none) is no disk of the guest's.
            if "qdev" in block and self.is_ours(block.get("inserted", {})):
                # Of a virtio disk it is the inner half that holds the node.
                return path_of(block["qdev"].removesuffix("/virtio-backend"))
        return None

    def nodes(self) -> Iterator[Mapping[str, Any]]:
        """All that QEMU has made of files and exports, each node with its layers."""
        yield from self.monitor.execute("query-named-block-nodes", flat=True)

    def is_ours(self, node: Mapping[str, Any]) -> bool:
        """Its name says nothing: two instances may have a device of one name."""
        export = Export.parse(node.get("file", ""))
        return export is not None and export.is_same(self.disk.export)

    def own_nodes(self) -> list[str]:
        """The upper layers first."""
        ours = [node for node in self.nodes() if self.is_ours(node)]
        return [node["node-name"] for node in sorted(ours, key=lambda node: node["drv"] == "nbd")]

    def namesakes(self) -> list[Path]:
        """The sockets of other servers whose device of this name the guest has."""
        exports = (Export.parse(node.get("file", "")) for node in self.nodes())
        others = [export for export in exports if export and export.name == self.disk.dev]
        found = {each.socket: None for each in others if not each.is_same(self.disk.export)}
        return list(found)

    def check_names(self) -> None:
        """RefusedError where a node that is not this device's has its name."""
        for node in self.nodes():
            if node["node-name"] == self.disk.name and not self.is_ours(node):
                raise RefusedError(
                    f"this QEMU has a disk {self.disk.name} already, of {node.get('file') or '?'}:"
                    " detach that one first"
                )

    def has_controller(self) -> bool:
        devices = self.monitor.execute("qom-list", path="/machine/peripheral")
        return any(device["name"] == self.disk.controller_name for device in devices)

    def controller_is_idle(self) -> bool:
        name = self.disk.controller_name
        bus = f"{path_of(name)}/virtio-backend/{name}.0"
        children = self.monitor.execute("qom-list", path=bus)
        return not any(child["name"].startswith("child[") for child in children)

    def state(self) -> str:
        """What the guest does: "running", else why it does not."""
        return str(self.monitor.execute("query-status")["status"])

    # --- in ---

    def plug(self, controller: str | None = None) -> None:
        """All of it or nothing: when a step fails, what was added is removed again."""
        with ExitStack() as undo:
            if self.disk.name in self.own_nodes():
                # Left by an attach that was killed. QEMU refuses when something uses it.
                self.delete_nodes([self.disk.name])
            self.check_names()
            # Registered before it is tried: after Ctrl-C nobody knows how far QEMU got.
            undo.callback(self.undo_node)
            self.monitor.execute("blockdev-add", **self.disk.node())
            if self.disk.bus == SCSI and controller is None and not self.has_controller():
                undo.callback(self.undo_device, self.disk.controller_name)
                self.add(self.disk.controller())
            undo.callback(self.undo_device, self.disk.name)
            self.add(self.disk.device(controller))
            undo.pop_all()

    def add(self, properties: Properties) -> None:
        try:
            self.monitor.execute("device_add", **properties)
        except CommandFailedError as error:
            if "bus" in properties:
                raise
            # QEMU picks the root bus by itself, which on q35 takes nothing at run time.
            port = self.free_port()
            if port is None:
                raise PreswapError(
                    f"{error}; the machine has no free PCI port either: start it with one more"
                    " -device pcie-root-port, or name a virtio-scsi controller with --controller"
                ) from None
            self.monitor.execute("device_add", bus=port, **properties)

    def free_port(self) -> str | None:
        """The bus of a PCI Express port with nothing in it: it is named like the port."""
        for bus in self.monitor.execute("query-pci"):
            for device in bus["devices"]:
                bridge = device.get("pci_bridge")
                if bridge is not None and device["qdev_id"] and not bridge.get("devices"):
                    return str(device["qdev_id"])
        return None

    def undo_node(self) -> None:
        with suppress(MonitorError):
            self.delete_nodes([self.disk.name])

    def undo_device(self, name: str) -> None:
        with suppress(PreswapError):
            self.release(name, path_of(name), UNDO_SECONDS)

    # --- out ---

    def unplug(self, device: str | None, seconds: float) -> bool:
        """False where our controller stays: the machine was started with it, or others use it."""
        if device is not None:
            self.release("the disk", device, seconds)
        self.delete_nodes(self.own_nodes())
        if not self.has_controller():
            return True
        if not self.controller_is_idle():
            return False
        try:
            self.release("the disk's controller", path_of(self.disk.controller_name), seconds)
        except CommandFailedError:
            return False
        return True

    def release(self, what: str, path: str, seconds: float) -> None:
        """Takes a device out; on PCI the guest must let go of it first."""
        try:
            self.monitor.execute("device_del", id=path)
        except CommandFailedError as error:
            if "already in the process of unplug" not in str(error):
                raise

        def is_answer(event: Event) -> bool:
            answers = ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR")
            return event["event"] in answers and event["data"].get("path") == path

        answer = self.monitor.wait_for(is_answer, min(seconds, SILENT_SECONDS))
        if answer is None and seconds > SILENT_SECONDS:
            click.echo(f"waiting for the guest to let go of {what}", err=True)
            answer = self.monitor.wait_for(is_answer, seconds - SILENT_SECONDS)
        if answer is None:
            raise PartialError(
                f"the guest has not let go of {what} within {seconds:g} s;"
                " run it again to wait longer"
            )
        if answer["event"] != "DEVICE_DELETED":
            raise RefusedError(f"the guest refuses to let go of {what}")

    def delete_nodes(self, names: list[str]) -> None:
        for name in names:
            # QEMU takes those back itself that it has named itself.
            if not name.startswith("#"):
                self.monitor.execute("blockdev-del", **{"node-name": name})


def path_of(device: str) -> str:
    """A device by its id, or already by its path."""
    return device if device.startswith("/") else f"/machine/peripheral/{device}"
