# SPDX-License-Identifier: BSD-3-Clause
"""The guest's file system: busybox, modules, an init that takes commands, and programs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from preswapd.guest.cpio import Archive
from preswapd.guest.modules import ModuleTree
from preswapd.guest.programs import static_busybox, with_libraries

INIT = Path(__file__).with_name("init.sh")
# PCI and console first: without them nobody hears what went wrong with the others.
MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_scsi", "sd_mod", "virtio_rng")


def build(
    modules: Path,
    programs: Sequence[Path] = (),
    files: Mapping[str, bytes] | None = None,
    drivers: Sequence[str] = (),
) -> bytes:
    """An initramfs with these programs of the host and these files, all executable.

    `drivers`: modules of the kernel that are loaded beside those that every guest needs.
    """
    archive = Archive()
    archive.character_device("/dev/console", 5, 1)
    archive.file("/bin/busybox", static_busybox().read_bytes(), 0o755)
    archive.file("/init", INIT.read_bytes(), 0o755)
    add_modules(archive, ModuleTree(modules), drivers)
    for path in with_libraries(programs):
        archive.file(str(path), path.read_bytes(), 0o755)
    for name, content in (files or {}).items():
        archive.file(name, content, 0o755)
    return archive.to_bytes()


def add_modules(archive: Archive, tree: ModuleTree, drivers: Sequence[str]) -> None:
    order = tree.load_order((*MODULES, *drivers))
    for name, content in order:
        archive.file(f"/modules/{name}.ko", content)
    archive.file("/modules/order", "".join(f"{name}\n" for name, _ in order).encode())
