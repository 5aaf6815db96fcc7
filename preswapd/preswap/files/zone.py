# SPDX-License-Identifier: BSD-3-Clause
"""The scan zone: the pages of a swap disk that a fresh guest reads before it has written any.

What a guest reads to find out what a disk holds must not fail, as its VM would pause.  So these
pages are a plain file, without tmem.  docs/scan-zone.md has who was seen to read them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from preswapd.units import PAGE_SIZE

KIB, MIB = 1 << 10, 1 << 20
SECTOR = 512
# GRUB reads whole blocks of this size, wherever it looks for something.
BLOCK = 32 * KIB
# A smaller disk has page 0 alone: most of it would be zone.  Such disks are for tests.
SMALLEST = 8 * MIB // PAGE_SIZE


class Place(NamedTuple):
    """Bytes that are read, and who looks for what there."""

    start: int
    length: int
    reader: str
    # What counts from the end does so from a multiple of this, below which the size is rounded.
    unit: int = SECTOR


FROM_START = (
    Place(0, 512 * KIB, "partition tables, most signatures, LVM's label, the first ZFS labels"),
    Place(512 * KIB, 256 * KIB, "UDF in blocks of 2K, and what is read ahead behind ZFS labels"),
    Place(1 * MIB, 4 * KIB, "UDF in blocks of 4K, VMware's volumes"),
    Place(2 * MIB, 4 * KIB, "VMware's file systems, bcachefs"),
    Place(4 * MIB, 4 * KIB, "the last place of LUKS2's second header"),
)
# `start` is how far before the end.
FROM_END = (
    Place(1 * SECTOR, SECTOR, "the second GPT; DDF, Adaptec, LSI, VIA, Silicon Image, JMicron"),
    Place(2 * SECTOR, SECTOR, "Intel and NVIDIA RAID"),
    Place(4 * KIB, 4 * KIB, "DRBD, NILFS2's second superblock"),
    Place(5632, SECTOR, "HighPoint RAID"),
    Place(8 * KIB, 4 * KIB, "Linux RAID 1.0", 4 * KIB),
    Place(64 * KIB, 4 * KIB, "Linux RAID 0.90", 64 * KIB),
    *(
        Place(sectors * SECTOR, SECTOR, "Promise RAID")
        for sectors in (16, 63, 255, 256, 399, 591, 675, 735, 911, 951, 974, 991, 3087)
    ),
    Place(257 * SECTOR, SECTOR, "the second DDF header"),
    # To the end, wherever that is: LVM looks for Linux RAID in blocks of 128K.
    Place(512 * KIB, 768 * KIB, "the last ZFS labels, LVM", 256 * KIB),
    *(Place(kib * KIB, 4 * KIB, "dmraid") for kib in (516, 772, 1060)),
    Place(1 * MIB, 4 * KIB, "bcachefs' last superblock"),
)


def zone(pages: int) -> tuple[range, ...]:
    """The pages of the scan zone of a disk: ranges in order that do not touch."""
    if pages < SMALLEST:
        return (range(1),)
    merged: list[range] = []
    for place in sorted(places(pages * PAGE_SIZE), key=lambda place: place.start):
        if merged and place.start <= merged[-1].stop:
            last = merged.pop()
            place = range(last.start, max(last.stop, place.stop))
        merged.append(place)
    return tuple(merged)


def places(size: int) -> Iterator[range]:
    """The pages of each place, in whole blocks as far as the disk goes."""
    for place in FROM_START:
        yield blocks(place.start, place.start + place.length, size)
    for place in FROM_END:
        start = size - size % place.unit - place.start
        yield blocks(start, start + place.length, size)


def blocks(start: int, end: int, size: int) -> range:
    first, last = start // BLOCK * BLOCK, min(-(-end // BLOCK) * BLOCK, size)
    return range(first // PAGE_SIZE, last // PAGE_SIZE)
