# SPDX-License-Identifier: BSD-3-Clause
"""The kernel's own compressed swap disk, in a real guest, with the same pages."""

from collections.abc import Sequence
from pathlib import Path

from preswapd.guest.kernel import Kernel, default_cache, find_kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.memory import memory_leaving
from preswapd.guest.modules import ModuleTree

MIB = 1 << 20
# For the guest's own programs.
MEMORY = 99 * MIB
MODULES = ("zram", "lz4", "zstd")
# Under emulation zstd takes the most, about 10 s for 144 MiB.
WRITE_SECONDS = 240.0
# The first fields of mm_stat, in this order (Linux, admin-guide/blockdev/zram).
FIELDS = (
    "orig_data_size",
    "compr_data_size",
    "mem_used_total",
    "mem_limit",
    "mem_used_max",
    "same_pages",
)


def measure(file: Path, codecs: Sequence[str]) -> dict[str, dict[str, int]]:
    """By codec, mm_stat after all pages were written, in bytes and pages.

    `kernel_memory` is by how much the guest's free memory fell: the pool and, other than in
    `mem_used_total`, zram's tables and the allocator's own.
    """
    kernel = find_kernel(default_cache())
    memory = memory_leaving(MEMORY + file.stat().st_size, kernel, default_cache())
    hardware = Hardware(memory, material=file)
    with Guest(hardware, Software(kernel, files=modules(kernel)), default_cache()) as guest:
        guest.run("for module in /zram/*; do insmod $module || exit 1; done")
        return {codec: stored(guest, codec, file.stat().st_size) for codec in codecs}


def modules(kernel: Kernel) -> dict[str, bytes]:
    """Files whose order by name is the order in which they load."""
    order = ModuleTree(kernel.modules).load_order(MODULES)
    return {f"/zram/{at:02}-{name}.ko": content for at, (name, content) in enumerate(order)}


def stored(guest: Guest, codec: str, size: int) -> dict[str, int]:
    device = "/sys/block/zram0"
    before = free(guest)
    guest.run(f"echo {codec} >{device}/comp_algorithm && echo {size} >{device}/disksize")
    # Past the guest's page cache on both sides.
    copy = "dd if=/dev/vda of=/dev/zram0 bs=1M iflag=direct oflag=direct 2>/dev/null"
    guest.start(f"write-{codec}", copy).wait(WRITE_SECONDS)
    after = free(guest)
    words = guest.read(f"{device}/mm_stat").split()
    guest.run(f"echo 1 >{device}/reset")
    return {**dict(zip(FIELDS, map(int, words), strict=False)), "kernel_memory": before - after}


def free(guest: Guest) -> int:
    guest.run("echo 3 >/proc/sys/vm/drop_caches")
    return guest.meminfo()["MemFree"]
