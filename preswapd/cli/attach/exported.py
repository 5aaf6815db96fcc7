# SPDX-License-Identifier: BSD-3-Clause
"""What a name stands for as a guest's disk: a swap device, or an image."""

from dataclasses import replace
from pathlib import Path

from preswapd.api.figures import ImageFigures
from preswapd.cli.attach.disk import Disk
from preswapd.cli.attach.image_disk import ImageDisk
from preswapd.cli.attach.overlay import provide
from preswapd.cli.attach.remote import LOCAL, Way, check, remote
from preswapd.cli.instances import Instances, RunningInstance
from preswapd.errors import UsageError


def exported_disk(
    instances: Instances, name: str, bus: str, overlay: Path | None, way: Way = LOCAL
) -> Disk:
    """With the overlay, which is made where it is missing."""
    instance, image = instances.exporting(name)
    check(way)
    if way.tcp is not None and overlay is not None:
        raise UsageError(
            "--overlay makes FILE on this host, and --tcp is for a guest of another one: make it"
            " there, with qemu-img create"
        )
    disk = disk_of(instance, image, name, bus, overlay)
    if way.tcp is None:
        return disk
    return replace(disk, remote=remote(instance.client.facts(), way))


def disk_of(
    instance: RunningInstance,
    image: ImageFigures | None,
    name: str,
    bus: str,
    overlay: Path | None,
) -> Disk:
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
