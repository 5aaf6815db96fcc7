# SPDX-License-Identifier: BSD-3-Clause
"""The scan zone: the places of a disk that a guest reads before it has written them."""

from preswapd.units import PAGE_SIZE

SMALLEST = (8 << 20) // PAGE_SIZE
# (offset, length) in bytes: what `blkid -p` of util-linux 2.38 reads on any disk.
FROM_START = (
    (0, 512 << 10),
    (512 << 10, PAGE_SIZE),
    (1 << 20, PAGE_SIZE),
    (2 << 20, PAGE_SIZE),
    (4 << 20, PAGE_SIZE),
)
FROM_END = (
    (512, 512),
    (1024, 1024),
    (4096, 4096),
    (5632, 512),
    (8192, 4096),
    (32256, 512),
    (64 << 10, PAGE_SIZE),
    ((128 << 10) + 512, 1536),
    (199 * 1024 + 512, 1024),
    (256 << 10, 256 << 10),
    (295 * 1024 + 512, 512),
    (495 * 1024 + 512, 512),
    (512 << 10, 256 << 10),
    (1580544, PAGE_SIZE),
)


def zone(pages: int) -> tuple[range, ...]:
    """Ranges of pages, in order; none is empty, none touches another."""
    if pages < SMALLEST:
        return (range(1),)
    size = pages * PAGE_SIZE
    places = [*FROM_START, *((size - back, length) for back, length in FROM_END)]
    found: list[range] = []
    for start, length in sorted(places):
        first, end = start // PAGE_SIZE, -(-min(start + length, size) // PAGE_SIZE)
        if found and first <= found[-1].stop:
            found[-1] = range(found[-1].start, max(end, found[-1].stop))
        else:
            found.append(range(first, end))
    return tuple(found)
