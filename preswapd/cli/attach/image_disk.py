# SPDX-License-Identifier: BSD-3-Clause
"""An image as a guest's disk: read-only, or below an overlay of the guest's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from preswapd.cli.attach.disk import NAME_BYTES, RECONNECT_SECONDS, Disk, Properties


@dataclass(frozen=True)
class ImageDisk(Disk):
    """`overlay`: a qcow2 file, which has what this one guest writes."""

    overlay: Path | None = None

    prefix: ClassVar[str] = "image"
    controller_prefix: ClassVar[str] = "psi"

    @property
    def base_name(self) -> str:
        """The name of the image's own node."""
        return self.name if self.overlay is None else self.named("base", NAME_BYTES)

    def node(self) -> Properties:
        return {
            "driver": "nbd",
            "node-name": self.base_name,
            "server": {"type": "unix", "path": str(self.socket)},
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
