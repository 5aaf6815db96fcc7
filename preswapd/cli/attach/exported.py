# SPDX-License-Identifier: BSD-3-Clause
"""What a name stands for as a guest's disk: a swap device, or an image."""

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
    if overlay is None:
        return ImageDisk.of(instance, name, bus)
    path = overlay.absolute()  # QEMU may run in another directory
    disk = ImageDisk(name, instance.nbd_socket, bus, instance.name, path)
    provide(disk.export, path)
    return disk
