# SPDX-License-Identifier: BSD-3-Clause
"""The virtual machine that is meant: the devices of an instance that one QEMU has, and what the
server knows of them."""

import time
from pathlib import Path
from typing import NamedTuple

from preswapd.api.figures import Statistics
from preswapd.api.messages import Parked
from preswapd.cli.attach.disk import Disk
from preswapd.cli.attach.hotplug import Hotplug
from preswapd.cli.instances import Instances, RunningInstance, UnknownError
from preswapd.cli.park.policy import PAGE, Seen
from preswapd.errors import RefusedError, UnreachableError, UsageError
from preswapd.host.filesystems import free_bytes
from preswapd.paths import StatePaths
from preswapd.qmp import Monitor


class Named(NamedTuple):
    """An instance, and one of its devices where that was named."""

    instance: RunningInstance
    device: str | None
    stats: Statistics

    @property
    def name(self) -> str:
        return self.device or self.instance.name

    @property
    def devices(self) -> list[str]:
        return [self.device] if self.device else list(self.stats["devices"])

    def parked(self) -> dict[str, Parked]:
        """What the server keeps of it, by device."""
        asked = ((name, self.instance.client.parked(name)) for name in self.devices)
        return {name: one for name, one in asked if one is not None}

    def is_used(self, device: str) -> bool:
        """By some QEMU, as far as the server knows."""
        figures = self.stats["devices"][device]
        return bool(figures["connections"] or figures.get("awaited"))


def named(instances: Instances, name: str) -> Named:
    """What an operator calls by the name of its instance, or of its device.

    UsageError where it is not clear which one.
    """
    found = []
    for instance in instances.running():
        try:
            stats = instance.client.stats()
        except UnreachableError as error:
            if instances.named:
                raise
            raise UnreachableError(f"{error}: name the one you mean with --instance") from None
        instance = instance._replace(name=stats["instance"])
        if name in stats["devices"]:
            found.append(Named(instance, name, stats))
        elif name == stats["instance"]:
            found.append(Named(instance, None, stats))
        if name in stats.get("refused", {}):
            raise RefusedError(f"{name} is not served: {stats['refused'][name]}")
    away = [gone for gone in instances.stopped if name == gone.name or name in gone.pages]
    if len(found) + len(away) > 1:
        raise UsageError(
            f"{name!r} may be one of several ({', '.join(one.instance.name for one in found)}):"
            " name the instance with --instance"
        )
    if away:
        raise UnreachableError(away[0].sentence)
    if not found:
        raise UnknownError(f"there is no instance and no device {name!r}")
    return found[0]


class Machine:
    """What QEMU at `qmp` runs, as far as it swaps to the instance."""

    def __init__(self, meant: Named, monitor: Monitor, qmp: Path) -> None:
        self.instance = meant.instance
        self.client = meant.instance.client
        self.monitor = monitor
        self.qmp = qmp.absolute()
        self.devices = [
            name for name in meant.stats["devices"] if is_attached(meant.instance, name, monitor)
        ]
        self.missing = [name for name in meant.devices if name not in self.devices]
        # The instance's other virtual machines are not meant, so its name would be wrong.
        others = any(meant.is_used(name) for name in self.missing)
        self.name = self.devices[0] if self.devices and others else meant.name
        self.is_attached = bool(self.devices) and (
            meant.device is None or meant.device in self.devices
        )

    def check_attached(self) -> None:
        if not self.is_attached:
            what = " and ".join(self.missing) or "no device"
            raise RefusedError(
                f"the virtual machine at {self.qmp} has {what} of {self.instance.name} not"
                " attached: its guest could not swap there"
            )

    def note(self, left: int, whole: int) -> None:
        """The server keeps it, before QEMU is told."""
        for name in self.devices:
            self.client.park(name, Parked(left, whole, str(self.qmp), self.monitor.pid))

    def forget(self) -> None:
        for name in self.devices:
            self.client.unpark(name)


def is_attached(instance: RunningInstance, device: str, monitor: Monitor) -> bool:
    return Hotplug(monitor, Disk.of(instance, device)).device() is not None


class Traffic:
    """What some devices have read and written, across restarts of their server."""

    def __init__(self, instance: RunningInstance, devices: list[str]) -> None:
        self.client = instance.client
        self.devices = devices
        self.before: tuple[int, int] | None = None
        self.run: object = None
        self.swapped_in = self.swapped_out = 0
        self.parked = False

    def look(self, has: int = 0, room: bool = True) -> Seen:
        stats = self.client.stats()
        figures = [stats["devices"][name] for name in self.devices if name in stats["devices"]]
        self.parked = any(one.get("parked") for one in figures)
        now = (
            sum(one["loads"] + one["disk_reads"] for one in figures),
            sum(one["succ_stores"] + one["failed_stores"] for one in figures),
        )
        run = stats.get("server", {}).get("pid")
        # Counters begin anew with the server; what came between the last look and its end is lost.
        if self.before is not None and run == self.run:
            self.swapped_in += max(0, now[0] - self.before[0])
            self.swapped_out += max(0, now[1] - self.before[1])
        self.before, self.run = now, run
        return Seen(
            time.monotonic(),
            has,
            self.swapped_in,
            self.swapped_out,
            self.room(stats) if room else 0,
        )

    def room(self, stats: Statistics) -> int:
        """For so many bytes more the devices have pages, and the host a place, at the worst.

        RefusedError where one is not served any more.
        """
        free, elsewhere = 0, 0
        paths = StatePaths(Path(self.client.facts().state_dir))
        for name in self.devices:
            one = stats["devices"].get(name)
            if one is None:
                why = stats.get("refused", {}).get(name, "it was removed")
                raise RefusedError(f"{name} is not served any more: {why}")
            used = one["preswap_pages"] + one["disk_pages"] + one["lost_pages"]
            left = one["size"] - PAGE * used
            free += left
            # All of that is there already.
            if paths.disk_file(name).is_block_device():
                elsewhere += left
        tmem = stats["tmem"]
        pool = 0 if tmem.get("frozen") else max(0, tmem["mem_limit"] - tmem["mem_used_total"])
        return min(free, pool + free_bytes(paths.state_dir) + elsewhere)
