# SPDX-License-Identifier: BSD-3-Clause
"""Which pages of a process are taken: its own, and those that are there."""

import mmap
import os
import struct

from benchmarks import capture
from benchmarks.capture import Range
from preswapd.units import PAGE_SIZE

MAPS = """\
55d000-55e000 r--p 00000000 fe:00 1234                       /usr/bin/a program
560000-580000 rw-p 00000000 00:00 0                          [heap]
7f0000-7f1000 rw-s 00000000 00:01 99                         /dev/shm/shared
7f2000-7f3000 rw-p 00000000 00:00 0
7ffd00-7ffd04 r--p 00000000 00:00 0                          [vvar]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0      [vsyscall]
"""


def test_shared_and_special_mappings_are_left_out() -> None:
    assert list(capture.private_ranges(MAPS)) == [
        Range(0x55D000, 0x55E000),
        Range(0x560000, 0x580000),
        Range(0x7F2000, 0x7F3000),
    ]


def test_absent_pages_and_pages_of_files_are_left_out() -> None:
    there, swapped, of_a_file = 1 << 63, 1 << 62, 1 << 63 | 1 << 61
    entries = struct.pack("=5Q", there, 0, swapped, of_a_file, there | 1 << 55)
    assert list(capture.present(entries)) == [0, 4]


def test_more_pages_than_wanted_are_picked_evenly() -> None:
    assert capture.picked(list(range(10)), 5) == [0, 2, 4, 6, 8]
    assert capture.picked([1, 2], 5) == [1, 2]


def test_pages_of_a_living_process_are_read() -> None:
    with mmap.mmap(-1, 4 * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory[PAGE_SIZE : 2 * PAGE_SIZE] = mark = os.urandom(PAGE_SIZE)
        addresses = capture.anonymous_pages(os.getpid())
        assert any(capture.read(os.getpid(), [address]) == mark for address in addresses)
