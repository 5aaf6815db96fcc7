# SPDX-License-Identifier: BSD-3-Clause
"""A real guest's kernel and tools read in the scan zone only, and it never swaps there."""

import hashlib
import random
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from preswapd.cli.attach.disk import Disk
from preswapd.cli.attach.qemu_args import qemu_arguments
from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.memory import memory_leaving
from preswapd.guest.programs import find
from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE
from tests.scan.logged import LoggedDisk, Shape, Span, outside_zone, pages

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(500)]

KIB, MIB = 1 << 10, 1 << 20
SHAPES = (
    Shape("header", 256 * MIB, True),
    Shape("zeros", 256 * MIB, False),
    # No multiple of what tools round sizes to.
    Shape("odd", 100 * MIB + 212 * KIB, True),
)
# With their paths, as the guest's busybox has applets of the same names.
SCANNERS = (
    *("blkid -p DISK", "wipefs DISK", "fdisk -l DISK", "sfdisk --dump DISK", "gdisk -l DISK"),
    *("parted -s DISK print", "mdadm --examine DISK", "lvm pvs -a", "lvm pvck DISK"),
    "swaplabel DISK",
)
SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"
# As much as there is swap for, but little.
FILL = """
mkdir /fill; mount -t tmpfs -o size=1G none /fill
n=0
while [ $(awk '/SwapFree/ { print $2 }' /proc/meminfo) -gt 4096 ]; do
  dd if=/dev/vda of=/fill/data bs=1M count=1 skip=$n seek=$n 2>/dev/null || exit 1
  n=$((n + 1))
done
echo $n $(sha256sum </fill/data)
"""


def attached(disk: LoggedDisk) -> list[str]:
    return qemu_arguments(Disk(disk.shape.name, disk.socket))


def test_guest_reads_in_the_zone_only(kernel: Kernel, guest_cache: Path, tmp_path: Path) -> None:
    blkid = find("blkid", "util-linux")
    programs = {name: shutil.which(name, path=SBIN) for name in {s.split()[0] for s in SCANNERS}}
    software = Software(kernel, [blkid, *(Path(path) for path in programs.values() if path)])
    with ExitStack() as stack:
        disks = [stack.enter_context(LoggedDisk(shape, tmp_path)) for shape in SHAPES]
        options = [option for disk in disks for option in attached(disk)]
        hardware = Hardware(256 * MIB, disks=options)
        guest = stack.enter_context(Guest(hardware, software, guest_cache, life=400))
        for scanner in SCANNERS:
            name, _, arguments = scanner.partition(" ")
            if path := programs[name]:
                guest.run("echo 3 >/proc/sys/vm/drop_caches")
                command = f"{path} {arguments.replace('DISK', '$d')}"
                guest.run(f"for d in /dev/sd[abc]; do {command}; done", check=False)
        assert guest.stops() == []
        for disk in disks:
            assert {request.kind for request in disk.requests()} == {"Read"}
            # So much at least, so that it would be noticed if nothing had been read or logged.
            assert disk.reads()[0] >= Span(0, 256 * KIB)
            assert outside_zone(disk.reads(), disk.shape.size) == []


def test_guest_never_swaps_to_the_zone(kernel: Kernel, guest_cache: Path, tmp_path: Path) -> None:
    shape = Shape("header", 24 * MIB, True)
    data = random.Random(1).randbytes(96 * MIB)
    material = tmp_path / "material"
    material.write_bytes(data)
    memory = memory_leaving(32 * MIB, kernel, guest_cache)
    inside = {page for part in zone(shape.size // PAGE_SIZE) for page in part}
    with LoggedDisk(shape, tmp_path) as disk:
        hardware = Hardware(memory, disks=attached(disk), material=material)
        with Guest(hardware, Software(kernel), guest_cache, life=400) as guest:
            assert guest.swapon("header").size == shape.size - len(inside) * PAGE_SIZE
            # Its discard of everything is no swapping.
            since = disk.moment()
            job = guest.start("fill", FILL)
            copied, digest = job.wait(150).output.split()[:2]
            assert digest == hashlib.sha256(data[: int(copied) * MIB]).hexdigest()
            # How much is in use now says nothing: Linux frees the places of pages that are read
            # back while more than half is taken.  The fill has ended, so they were taken.
            assert guest.troubles() == []
            assert guest.stops() == []
        written = {
            page for kind, span in disk.requests(since) if kind == "Write" for page in pages(span)
        }
    assert len(written) * PAGE_SIZE > shape.size // 2
    assert not written & inside
