# SPDX-License-Identifier: BSD-3-Clause
"""Flipped bits: exactly the damaged page is lost, its neighbours are intact, and no byte is wrong.

Damage comes in two ways: to an arena at rest, which the next recovery reads, and under a running
host, whose index still knows the slot.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.errors import PageDamagedError, RefusedError
from preswapd.tmem._tmem import Host
from tests.tmem import arena_file
from tests.tmem.arena_file import Slot, flip_bit, slots_of
from tests.tmem.pages import make_page, read_page

LIMIT = 4 << 20
POOLED = ("zeros", "same", "text", "half", "noise")
PAGES = {index: make_page(POOLED[index % 5], index) for index in range(15)}
INDEXES = st.sampled_from(sorted(PAGES))
BITS = st.integers(0, 7)


def fill(host: Host) -> None:
    pool = host.new_pool()
    for index, page in PAGES.items():
        assert host.put_page(pool, 0, index, page, compress=("lz4", "zstd")[index % 2])


@contextmanager
def filled() -> Iterator[Host]:
    """A host of its own for each example."""
    shm = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    host = Host(shm / "arena", LIMIT, create=True)
    try:
        fill(host)
        yield host
    finally:
        host.close()
        shutil.rmtree(shm)


def slot_of(host: Host, index: int) -> Slot:
    (slot,) = (slot for slot in slots_of(Path(host.path)) if slot.index == index)
    return slot


def restarted(host: Host) -> tuple[Host, dict[str, int]]:
    host.close()
    again = Host(host.path, LIMIT, create=False)
    return again, again.recover()


def look(host: Host, index: int) -> bytes | str | None:
    try:
        return read_page(host, 0, 0, index)
    except PageDamagedError:
        return "damaged"


def check_neighbours(host: Host, damaged: set[int]) -> None:
    for index in PAGES.keys() - damaged:
        assert look(host, index) == PAGES[index]


def use_all(host: Host, damaged: int) -> None:
    """A damaged page can be put anew and flushed, like any other."""
    host.maintain(all=True)
    host.put_page(0, 0, damaged, PAGES[damaged])
    assert look(host, damaged) == PAGES[damaged]
    assert host.flush_page(0, 0, damaged)
    check_neighbours(host, {damaged})
    assert host.flush_object(0, 0) == len(PAGES) - 1
    assert host.destroy_pool(0) == 0
    host.maintain(all=True)
    assert host.stats()["stored_pages"] == 0


@given(index=INDEXES, byte=st.integers(0, 31), bit=BITS)
def test_header_under_a_running_host(index: int, byte: int, bit: int) -> None:
    with filled() as host:
        flip_bit(Path(host.path), slot_of(host, index).header_at + byte, bit)
        # The header's own check, in bytes 4 to 7, serves recovery alone.
        expected = PAGES[index] if 4 <= byte < 8 else "damaged"
        assert look(host, index) == expected
        use_all(host, index)


@given(index=INDEXES, byte=st.integers(0, 31), bit=BITS)
def test_header_at_rest(index: int, byte: int, bit: int) -> None:
    with filled() as host:
        flip_bit(Path(host.path), slot_of(host, index).header_at + byte, bit)
        again, found = restarted(host)
        assert found["damaged_slots"] == 1
        assert look(again, index) is None
        use_all(again, index)
        again.close()


@given(index=INDEXES, place=st.floats(0, 1, exclude_max=True), bit=BITS, restart=st.booleans())
def test_payload(index: int, place: float, bit: int, restart: bool) -> None:
    with filled() as host:
        slot = slot_of(host, index)
        flip_bit(Path(host.path), slot.payload_at + int(place * slot.length), bit)
        again = restarted(host)[0] if restart else host
        assert look(again, index) == look(again, index) == "damaged"
        assert again.stats()["checksum_errors"] == 2
        use_all(again, index)
        again.close()


@given(index=INDEXES, byte=st.integers(0, 7), bit=BITS)
def test_class_word(index: int, byte: int, bit: int) -> None:
    """The slab's pages are lost, for nothing says any more where they lie."""
    with filled() as host:
        slab = slot_of(host, index).header_at // arena_file.SLAB
        data = arena_file.read_front(Path(host.path))
        inside = {slot.index for slot in arena_file.slots_in(data, slab)}
        flip_bit(Path(host.path), slab * arena_file.SLAB + byte, bit)
        again, found = restarted(host)
        assert found["damaged_slabs"] == 1
        assert all(look(again, lost) is None for lost in inside)
        check_neighbours(again, inside)
        again.close()


@given(byte=st.integers(0, 95), bit=BITS)
def test_superblock(byte: int, bit: int) -> None:
    with filled() as host:
        host.close()
        flip_bit(Path(host.path), byte, bit)
        with pytest.raises(RefusedError):
            Host(host.path, LIMIT, create=False)


@given(byte=st.integers(0, 31), bit=BITS)
def test_pool_entry(byte: int, bit: int) -> None:
    with filled() as host:
        host.close()
        flip_bit(Path(host.path), arena_file.POOLS_AT + byte, bit)
        with pytest.raises(RefusedError, match="pool table"):
            Host(host.path, LIMIT, create=False)


@given(flips=st.lists(st.tuples(st.integers(65536, 65536 * 8), BITS), min_size=1, max_size=200))
def test_many_flips_never_give_wrong_bytes(flips: list[tuple[int, int]]) -> None:
    with filled() as host:
        for byte, bit in flips:
            flip_bit(Path(host.path), byte, bit)
        again, _ = restarted(host)
        for index, page in PAGES.items():
            assert look(again, index) in (page, None, "damaged")
        again.close()


@given(index=INDEXES, byte=st.integers(8, 31), bit=BITS)
def test_damaged_header_displaces_nobody(index: int, byte: int, bit: int) -> None:
    """Not even after the mover has been there, and the slot was replaced half."""
    with filled() as host:
        flip_bit(Path(host.path), slot_of(host, index).header_at + byte, bit)
        host.maintain(all=True)
        again, _ = restarted(host)
        assert look(again, index) is None
        check_neighbours(again, {index})
        again.close()


def test_a_damaged_page_is_replaced(host: Host) -> None:
    fill(host)
    flip_bit(Path(host.path), slot_of(host, 4).payload_at, 0)
    host.put_page(0, 0, 4, PAGES[3])
    assert look(host, 4) == PAGES[3]


def test_a_damaged_pool_number_counts_for_its_own_pool(host: Host) -> None:
    fill(host)
    flip_bit(Path(host.path), slot_of(host, 4).header_at + 28, 0)
    host.flush_page(0, 0, 4)
    host.set_max_pages(0, len(PAGES))
    assert host.put_page(0, 0, 100, PAGES[3])


def test_a_failed_get_says_which_page(host: Host) -> None:
    fill(host)
    flip_bit(Path(host.path), slot_of(host, 4).payload_at, 0)
    with pytest.raises(PageDamagedError, match="page 4 of object 0 in pool 0"):
        host.get_page(0, 0, 4, bytearray(4096))


def test_a_damaged_page_does_not_stop_the_mover(host: Host) -> None:
    pool = host.new_pool()
    for index in range(600):
        host.put_page(pool, 0, index, make_page("noise", index))
    damaged = set()
    for slot in slots_of(Path(host.path))[::45]:
        flip_bit(Path(host.path), slot.header_at + 8, 3)
        damaged.add(slot.index)
    for index in range(600):
        if index not in damaged and index % 15 > 4:
            host.flush_page(pool, 0, index)
    host.maintain(all=True)
    stats = host.stats()
    assert stats["mem_used_total"] <= 1.7 * stats["live_slot_bytes"]
    with suppress(PageDamagedError):
        assert read_page(host, pool, 0, min(damaged)) is None
