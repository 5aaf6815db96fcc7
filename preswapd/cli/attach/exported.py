# SPDX-License-Identifier: BSD-3-Clause
"""What a name stands for as a guest's disk: a swap device, or an image."""

from dataclasses import replace
from pathlib import Path

from preswapd.cli.attach.disk import Disk
from preswapd.cli.attach.image_disk import ImageDisk
from preswapd.cli.attach.overlay import provide
from preswapd.cli.instances import Instances
from preswapd.errors import UsageError


def exported_disk(instances: Instances, name: str, bus: str, overlay: Path | None) -> Disk:
    """With the overlay, which is made where it is missing."""
    instance, image = instances.exporting(name)
    if image is None:
        if overlay is not None:
            raise UsageError(f"--overlay is for an image, and {name} is a swap device")
        return Disk.of(instance, name, bus)
    disk = ImageDisk.showing(image, instance, name, bus)
    if overlay is None:
        return disk
    if disk.is_own:
        raise UsageError(
            f"{name} is writable, and what is below an overlay must not change: leave --overlay"
            f" out, or serve a base that nobody writes to"
        )
    path = overlay.absolute()  # QEMU may run in another directory
    provide(disk.export, path)
    return replace(disk, overlay=path)
