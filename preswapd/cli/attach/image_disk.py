# SPDX-License-Identifier: BSD-3-Clause
"""An image as a guest's disk: read-only, below an overlay of the guest's own, or all its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from preswapd.api.figures import ImageFigures
from preswapd.cli.attach.disk import NAME_BYTES, RECONNECT_SECONDS, SCSI, Disk, Properties
from preswapd.cli.instances import RunningInstance


@dataclass(frozen=True)
class ImageDisk(Disk):
    """`overlay`: a qcow2 file, which has what this one guest writes.  `is_own`: the guest writes to
    the image itself."""

    overlay: Path | None = None
    is_own: bool = False

    prefix: ClassVar[str] = "image"
    controller_prefix: ClassVar[str] = "psi"

    @classmethod
    def showing(
        cls, figures: ImageFigures, instance: RunningInstance, name: str, bus: str = SCSI
    ) -> Self:
        """As Disk.of(), with what the server says of the image; an older one has read-only ones."""
        own = bool(figures.get("writable"))
        return cls(name, instance.nbd_socket, bus, instance.name, is_own=own)

    @property
    def is_read_only(self) -> bool:
        return self.overlay is None and not self.is_own

    @property
    def base_name(self) -> str:
        """The name of the image's own node."""
        return self.name if self.overlay is None else self.named("base", NAME_BYTES)

    def node(self) -> Properties:
        if self.is_own:
            # Zeros are not looked for: whoever has given the file all of its blocks keeps them,
            # until the guest discards some.
            return super().node()
        return {
            "driver": "nbd",
            "node-name": self.base_name,
            **self.server(),
            "export": self.dev,
            "reconnect-delay": RECONNECT_SECONDS,
            "read-only": True,
        }

    def upper_nodes(self) -> list[Properties]:
        if self.overlay is None:
            return []
        file = {"driver": "file", "filename": str(self.overlay), "discard": "unmap"}
        return [
            {
                "driver": "qcow2",
                "node-name": self.name,
                "file": file,
                "backing": self.base_name,
                "discard": "unmap",
            }
        ]

    def device(self, controller: str | None = None) -> Properties:
        found = super().device(controller)
        # What that is for is swap.
        found.pop("rotation_rate", None)
        return found
