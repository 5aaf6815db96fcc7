# SPDX-License-Identifier: BSD-3-Clause
"""A device as a guest's disk: its settings and names, the same for every way to attach it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import click

from preswapd.cli.attach.remote import Remote
from preswapd.cli.instances import RunningInstance
from preswapd.paths import DEFAULT_INSTANCE

Properties = dict[str, Any]

SCSI = "scsi"
VIRTIO = "virtio"

# How long a guest's requests wait for a server that has ended, before they fail.
RECONNECT_SECONDS = 300

# QEMU's node names have at most 31 bytes; of a serial number a guest's udev sees 20, on either bus.
NAME_BYTES, SERIAL_BYTES = 31, 20
# Of the name of a disk whose plain name is too long, or could be another's too.
DIGEST_BYTES = 4

bus_option = click.option(
    "--bus",
    type=click.Choice((SCSI, VIRTIO)),
    default=SCSI,
    show_default=True,
    help="The kind of disk: virtio-scsi, or virtio-blk, which needs a udev rule in the guest.",
)


class Export(NamedTuple):
    """What an NBD client connects to: the one thing that says whose disk it is."""

    name: str
    socket: Path

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """From QEMU's name for what a node is made of; None: not NBD over a Unix socket."""
        scheme, _, rest = text.partition(":///")
        name, found, socket = rest.partition("?socket=")
        return cls(name, Path(socket)) if scheme == "nbd+unix" and found else None

    def is_same(self, other: Self) -> bool:
        """QEMU's path to the socket may lead through a link (/var/run)."""
        return self.name == other.name and self.socket.resolve() == other.socket.resolve()


@dataclass(frozen=True)
class Disk:
    """The device DEV of the server at `socket`, as QEMU names it."""

    dev: str
    socket: Path
    bus: str = SCSI
    instance: str = DEFAULT_INSTANCE
    remote: Remote | None = None  # where the guest runs on another host

    prefix: ClassVar[str] = "preswap"
    controller_prefix: ClassVar[str] = "pss"

    @classmethod
    def of(cls, instance: RunningInstance, dev: str, bus: str = SCSI) -> Self:
        """`instance` was asked for its own name."""
        return cls(dev, instance.nbd_socket, bus, instance.name)

    @property
    def export(self) -> Export:
        return Export(self.dev, self.socket)

    @property
    def name(self) -> str:
        """The name of its node in QEMU's block layer, and the id of the disk."""
        return self.named(self.prefix, NAME_BYTES)

    @property
    def controller_name(self) -> str:
        return self.named(self.controller_prefix, NAME_BYTES)

    @property
    def serial(self) -> str:
        return self.named(self.prefix, SERIAL_BYTES)

    @property
    def path_in_guest(self) -> str:
        """Where udev links to the disk, whatever its label is."""
        if self.bus == SCSI:
            return f"/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{self.serial}"
        return f"/dev/disk/by-id/virtio-{self.serial}"

    def named(self, prefix: str, length: int) -> str:
        """No other device's, of any instance: a guest may have swap0 of two of them."""
        plain = f"{prefix}-{self.dev}"
        if self.instance != DEFAULT_INSTANCE:
            plain += f".{self.instance}"
        # With a dot in a name, it may be that of another device of another instance.
        is_plain = "." not in self.dev and "." not in self.instance
        if is_plain and len(plain) <= length:
            return plain
        whole = f"{self.instance}/{self.dev}".encode()
        digest = hashlib.blake2s(whole, digest_size=DIGEST_BYTES).hexdigest()
        return f"{prefix}-{self.dev}"[: length - len(digest) - 1] + f"-{digest}"

    def node(self) -> Properties:
        """For blockdev-add and -blockdev."""
        return {
            "driver": "nbd",
            "node-name": self.name,
            **self.server(),
            "export": self.dev,
            "reconnect-delay": RECONNECT_SECONDS,
            "discard": "unmap",
            "detect-zeroes": "off",
            "cache": {"direct": True, "no-flush": False},
        }

    def server(self) -> Properties:
        """How its node finds the server."""
        if self.remote is None:
            return {"server": {"type": "unix", "path": str(self.socket)}}
        return self.remote.server(self.keys_name)

    @property
    def keys_name(self) -> str:
        """The id of what holds the keys of TLS; one for each disk, as each comes and goes alone."""
        return self.named("keys", NAME_BYTES)

    def objects(self) -> list[Properties]:
        """For -object, before its node."""
        return [] if self.remote is None else self.remote.objects(self.keys_name)

    def upper_nodes(self) -> list[Properties]:
        """Those above it, the lower ones first; the disk is the uppermost."""
        return []

    def controller(self) -> Properties:
        """For device_add and -device; with SCSI only."""
        return {"driver": "virtio-scsi-pci", "id": self.controller_name}

    def device(self, controller: str | None = None) -> Properties:
        """For device_add and -device; `controller`: a virtio-scsi controller other than ours."""
        driver: Properties = {"driver": "virtio-blk-pci"}
        if self.bus == SCSI:
            driver = {"driver": "scsi-hd", "bus": f"{controller or self.controller_name}.0"}
        common = {"id": self.name, "drive": self.name, "serial": self.serial}
        # A guest trims freed swap only on a disk that does not rotate, and only SCSI can say so.
        still = {"rotation_rate": 1} if self.bus == SCSI else {}
        return driver | common | still | {"werror": "stop", "rerror": "stop"}
