# SPDX-License-Identifier: BSD-3-Clause
"""What this machine's tools read of a fresh swap disk lies in the scan zone."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preswapd.host.children import Child, ChildError
from preswapd.units import PAGE_SIZE as PAGE
from tests.running import PATIENCE
from tests.scan.logged import LoggedDisk, Shape, Span, outside_zone

# They lie in sbin, which is not in everybody's path.
PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
KIB, MIB = 1 << 10, 1 << 20

# The last two are no multiples of what tools round sizes to.
SIZES = (8 * MIB, 64 * MIB, 256 * MIB, 100 * MIB + 212 * KIB, 64 * MIB + PAGE)
SHAPES = [Shape("header" if yes else "zeros", size, yes) for yes in (True, False) for size in SIZES]
# Those that look for everything, and read all that may tell.
THOROUGH = ("blkid -p DISK", "wipefs DISK")
SCANNERS = (
    *THOROUGH,
    *("fdisk -l DISK", "sfdisk --dump DISK", "sfdisk --verify DISK", "gdisk -l DISK"),
    *("parted -s DISK print", "partx --show DISK", "mdadm --examine DISK", "swaplabel DISK"),
    *("dumpe2fs -h DISK", "tune2fs -l DISK"),
)


@contextmanager
def as_file(disk: LoggedDisk, path: Path) -> Iterator[Path]:
    """The disk as a file, whose reads the kernel asks us for."""
    if shutil.which("nbdfuse") is None:
        pytest.skip("nbdfuse is not installed")
    path.touch()
    mount = Child(["nbdfuse", "--readonly", str(path), "--unix", str(disk.socket)])
    try:
        mount.watch(lambda: path.stat().st_size or None, PATIENCE)
    except ChildError as error:
        pytest.skip(f"no file system in user space can be mounted here: {error}")
    try:
        yield path
    finally:
        # At SIGTERM it unmounts what it has mounted.
        mount.stop()


def scan(scanner: str, shape: Shape, folder: Path) -> list[Span]:
    program = scanner.split()[0]
    if shutil.which(program, path=PATH) is None:
        pytest.skip(f"{program} is not installed")
    with LoggedDisk(shape, folder) as disk, as_file(disk, folder / "disk") as path:
        subprocess.run(
            scanner.replace("DISK", str(path)).split(),
            env={"PATH": PATH, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert {request.kind for request in disk.requests()} == {"Read"}
        return disk.reads()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.name}-{shape.size}")
@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda scanner: scanner.split()[0])
def test_scanner_reads_in_the_zone_only(scanner: str, shape: Shape, tmp_path: Path) -> None:
    assert outside_zone(scan(scanner, shape, tmp_path), shape.size) == []


@pytest.mark.parametrize("scanner", THOROUGH)
def test_thorough_scanner_needs_most_of_the_zone(scanner: str, tmp_path: Path) -> None:
    """So that a test that passes because nothing was read, or nothing logged, would be noticed."""
    found = scan(scanner, Shape("zeros", 256 * MIB, False), tmp_path)
    # What lies between is read by fewer of its probes from release to release.
    assert found[0] >= Span(0, 256 * KIB)
    assert found[-1] >= Span(256 * MIB - 512 * KIB, 256 * MIB)
