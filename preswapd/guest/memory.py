# SPDX-License-Identifier: BSD-3-Clause
"""How much memory a guest needs to have a given amount of it for its programs.

What is free decides when a guest swaps, and how much Linux takes depends on its release and on the
machine: of 80 MiB 6.1 leaves 19 in QEMU 7.2, and 6.12 in QEMU 10 does not even start in them.
"""

from pathlib import Path

from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.programs import find
from preswapd.guest.remembered import remembered

MIB = 1 << 20
# Of the guest that shows what is taken: about as large as the guests that are asked for, as what
# Linux takes grows with the memory.  Of 128 MiB 6.12 takes 77, of 96 no more than 72.
TRIED = 112 * MIB
TRY_SECONDS = 180.0


def memory_leaving(available: int, kernel: Kernel, cache: Path) -> int:
    """Whole MiB, in bytes, of which so many bytes are available once the guest is up."""
    return -(-(available + taken_by(kernel, cache)) // MIB) * MIB


def taken_by(kernel: Kernel, cache: Path) -> int:
    """Bytes that this kernel and the guest's init take; seen once for each kernel and QEMU."""
    qemu = find("qemu-system-x86_64", "qemu-system-x86")
    key = f"{TRIED} with lists {identity(qemu)} {identity(kernel.image)}"
    return remembered(cache / "guest-memory.json", key, lambda: measure(kernel, cache))


def identity(file: Path) -> str:
    seen = file.stat()
    return f"{file} {seen.st_size} {seen.st_mtime_ns}"


def measure(kernel: Kernel, cache: Path) -> int:
    with Guest(Hardware(TRIED), Software(kernel), cache, life=TRY_SECONDS) as guest:
        return TRIED - guest.available()
