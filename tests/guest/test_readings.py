# SPDX-License-Identifier: BSD-3-Clause
"""The files under /proc, as a guest's kernel writes them."""

from preswapd.guest.readings import (
    SwapArea,
    SwapTraffic,
    swap_areas,
    swap_traffic,
    troubles,
    vmstat,
)

SWAPS = """\
Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/sda                                partition\t409596\t\t41216\t\t-2
/dev/disk\\040two                        partition\t4096\t\t0\t\t5
"""
LOG = """\
[    2.634740] Adding 409596k swap on /dev/sda.  Priority:-2 extents:1 across:409596k SSDsc
[   30.100000] I/O error, dev sda, sector 800 op 0x1:(WRITE) flags 0x4000 phys_seg 1 prio class 2
[   31.200000] Out of memory: Killed process 88 (sort) total-vm:90000kB
"""


def test_swap_areas_in_bytes() -> None:
    first, second = swap_areas(SWAPS)
    assert first == SwapArea("/dev/sda", 409596 << 10, 41216 << 10, -2)
    assert second.priority == 5


def test_swap_areas_without_any() -> None:
    assert swap_areas(SWAPS.splitlines()[0] + "\n") == []


def test_swap_traffic_of_vmstat() -> None:
    text = "nr_free_pages 812\npswpin 22791\npswpout 32162\n"
    assert swap_traffic(vmstat(text)) == SwapTraffic(22791, 32162)


def test_troubles_are_failed_disks_and_killed_processes() -> None:
    assert troubles(LOG) == LOG.splitlines()[1:]
