# SPDX-License-Identifier: BSD-3-Clause
"""The scan zone: which pages it has, at any size of a disk."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from preswapd.preswap.files.header import MOST_BAD_PAGES
from preswapd.preswap.files.zone import FROM_END, FROM_START, SMALLEST, zone
from preswapd.units import PAGE_SIZE as PAGE

# The table in C that the device looks pages up in.
MOST_RANGES = 64
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
LARGEST = (1 << 63) // PAGE - 1

sizes = st.one_of(
    st.integers(SMALLEST, SMALLEST + 1000),
    st.integers(SMALLEST, LARGEST),
    # Multiples of a MiB, as people make disks.
    st.integers(8, LARGEST * PAGE // MIB).map(lambda mib: mib * MIB // PAGE),
)


def pages_of(pages: int) -> set[int]:
    return {page for part in zone(pages) for page in part}


@pytest.mark.parametrize("pages", [1, 2, 256, SMALLEST - 1])
def test_a_small_disk_has_page_0_alone(pages: int) -> None:
    assert zone(pages) == (range(1),)


def test_zone_of_a_disk_of_8_gib() -> None:
    end = 8 * GIB // PAGE
    assert zone(end) == (
        range(192),
        range(256, 264),
        range(512, 520),
        range(1024, 1032),
        range(end - 392, end - 384),
        range(end - 272, end - 264),
        range(end - 256, end - 248),
        range(end - 200, end - 192),
        range(end - 136, end),
    )


@given(sizes)
@example(SMALLEST)
@example(SMALLEST + 63)
@example(LARGEST)
def test_zone_is_ranges_in_order_that_do_not_touch(pages: int) -> None:
    parts = zone(pages)
    assert parts[0].start == 0
    assert parts[-1].stop == pages
    assert all(part.step == 1 and len(part) > 0 for part in parts)
    assert all(before.stop < after.start for before, after in pairwise(parts))


@given(sizes)
def test_zone_fits_into_the_device_and_the_header(pages: int) -> None:
    assert len(zone(pages)) <= MOST_RANGES
    assert len(pages_of(pages)) - 1 <= MOST_BAD_PAGES


@given(sizes)
def test_zone_has_each_place_that_is_read(pages: int) -> None:
    found = pages_of(pages)
    size = pages * PAGE
    for place in FROM_START:
        assert all(at // PAGE in found for at in (place.start, place.start + place.length - 1))
    for place in FROM_END:
        start = size // place.unit * place.unit - place.start
        end = min(start + place.length, size)
        assert all(at // PAGE in found for at in (start, end - 1))


@given(st.integers(2 * SMALLEST // 64, 1 << 30))
def test_zone_moves_with_the_end(size: int) -> None:
    """By the 256 KiB that all units divide."""
    near, far = (pages_of(64 * n) for n in (size, size + 1))
    half = 64 * size // 2
    assert {page for page in near if page < half} == {page for page in far if page < half}
    moved = {page + 64 for page in near if page >= half}
    assert moved == {page for page in far if page >= half}
