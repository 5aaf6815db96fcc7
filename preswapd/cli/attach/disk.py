# SPDX-License-Identifier: BSD-3-Clause
"""A device as a guest's disk: its settings and names, the same for every way to attach it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

Properties = dict[str, Any]

SCSI = "scsi"
VIRTIO = "virtio"

# How long a guest's requests wait for a server that has ended, before they fail.
RECONNECT_SECONDS = 300

bus_option = click.option(
    "--bus",
    type=click.Choice((SCSI, VIRTIO)),
    default=SCSI,
    show_default=True,
    help="The kind of disk: virtio-scsi, or virtio-blk, which needs a udev rule in the guest.",
)


@dataclass(frozen=True)
class Disk:
    """The device DEV of the server at `socket`, as QEMU names it."""

    dev: str
    socket: Path
    bus: str = SCSI

    @property
    def name(self) -> str:
        """The name of its node in QEMU's block layer, the id of the disk, and its serial number."""
        return f"preswap-{self.dev}"

    @property
    def controller_name(self) -> str:
        return f"pss-{self.dev}"

    def node(self) -> Properties:
        """For blockdev-add and -blockdev."""
        return {
            "driver": "nbd",
            "node-name": self.name,
            "server": {"type": "unix", "path": str(self.socket)},
            "export": self.dev,
            "reconnect-delay": RECONNECT_SECONDS,
            "discard": "unmap",
            "detect-zeroes": "off",
            "cache": {"direct": True, "no-flush": False},
        }

    def controller(self) -> Properties:
        """For device_add and -device; with SCSI only."""
        return {"driver": "virtio-scsi-pci", "id": self.controller_name}

    def device(self, controller: str | None = None) -> Properties:
        """For device_add and -device; `controller`: a virtio-scsi controller other than ours."""
        driver: Properties = {"driver": "virtio-blk-pci"}
        if self.bus == SCSI:
            driver = {"driver": "scsi-hd", "bus": f"{controller or self.controller_name}.0"}
        common = {"id": self.name, "drive": self.name, "serial": self.name}
        # A guest trims freed swap only on a disk that does not rotate, and only SCSI can say so.
        still = {"rotation_rate": 1} if self.bus == SCSI else {}
        return driver | common | still | {"werror": "stop", "rerror": "stop"}
