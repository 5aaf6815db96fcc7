# SPDX-License-Identifier: BSD-3-Clause
"""Pages compressed once more by a denser codec: into shorter slots, or not at all."""

from pathlib import Path

import pytest

from preswapd.errors import PageDamagedError
from preswapd.tmem._tmem import Host
from tests.tmem.arena_file import LZ4, RAW, SAME, ZSTD, Slot, flip_bit, slots_of
from tests.tmem.pages import make_page, read_page
from tests.tmem.test_memory import blocks, used

MIB = 1 << 20


def put(host: Host, kind: str, first: int, count: int, compress: str = "lz4") -> int:
    """How many of the pages were taken."""
    pages = range(first, first + count)
    return sum(host.put_page(0, 0, i, make_page(kind, i), compress=compress) for i in pages)


def recompress(host: Host, first: int, count: int) -> int:
    return sum(host.recompress_page(0, 0, i, "zstd") for i in range(first, first + count))


def check(host: Host, kind: str, first: int, count: int) -> None:
    for i in range(first, first + count):
        assert read_page(host, 0, 0, i) == make_page(kind, i)


def slot_of(host: Host, index: int) -> Slot:
    (slot,) = (slot for slot in slots_of(Path(host.path)) if slot.index == index)
    return slot


@pytest.fixture
def pool(host: Host) -> int:
    return host.new_pool()


def test_pages_take_less_memory(host: Host, pool: int) -> None:
    assert put(host, "letters", 1, 1000) == 1000
    before = host.stats()
    done = recompress(host, 1, 1000)
    host.maintain(all=True)
    after = host.stats()
    assert done == after["recompressed_pages"] > 900
    saved = before["live_slot_bytes"] - after["live_slot_bytes"]
    assert after["recompress_saved"] == saved
    assert after["mem_used_total"] == blocks(host) < 0.7 * before["mem_used_total"]
    assert after["good_puts"] == before["good_puts"]
    assert after["stored_pages"] == 1000
    check(host, "letters", 1, 1000)


def pack(host: Host) -> None:
    """To the end, and what is empty goes back."""
    while host.pack():
        pass
    host.give_back()


def test_packed_pages_leave_few_holes(host: Host, pool: int) -> None:
    """Pages here and there are idle: slabs that they leave half empty are emptied, which those of a
    pool in use are not."""
    assert put(host, "letters", 1, 12_000) == 12_000
    host.maintain(all=True)
    before = used(host)
    assert sum(host.recompress_page(0, 0, i, "zstd") for i in range(1, 12_001, 5)) > 2000
    host.maintain(all=True)
    assert used(host) > 0.98 * before
    pack(host)
    stats = host.stats()
    assert stats["mem_used_total"] == blocks(host) < 0.95 * before
    assert stats["live_slot_bytes"] > 0.93 * stats["mem_used_total"]
    check(host, "letters", 1, 12_000)


def test_damaged_pages_do_not_stop_packing(host: Host, pool: int) -> None:
    """Nor does it go on for ever with slabs that cannot be emptied."""
    put(host, "noise", 0, 600)
    for slot in slots_of(Path(host.path))[::15]:
        flip_bit(Path(host.path), slot.header_at + 8, 3)
    for index in range(0, 600, 2):
        host.flush_page(0, 0, index)
    pack(host)
    assert host.stats()["checksum_errors"] == 0


def test_page_stays_the_same_page(host: Host, pool: int) -> None:
    put(host, "letters", 5, 1)
    before = slot_of(host, 5)
    assert host.recompress_page(pool, 0, 5, "zstd")
    after = slot_of(host, 5)
    assert (before.codec, after.codec) == (LZ4, ZSTD)
    assert after.seq == before.seq
    assert after.length < before.length
    host.close()
    again = Host(host.path, 64 * MIB, create=False)
    assert again.recover()["stored_pages"] == 1
    check(again, "letters", 5, 1)
    again.close()


def test_raw_pages_too(host: Host, pool: int) -> None:
    put(host, "letters", 5, 1, compress="none")
    assert slot_of(host, 5).codec == RAW
    assert host.stats()["huge_pages"] == 1
    assert host.recompress_page(pool, 0, 5, "zstd")
    assert slot_of(host, 5).codec == ZSTD
    assert host.stats()["huge_pages"] == 0
    check(host, "letters", 5, 1)


@pytest.mark.parametrize(
    ("kind", "stored", "codec"),
    [("noise", "lz4", RAW), ("half", "lz4", LZ4), ("same", "lz4", SAME), ("letters", "zstd", ZSTD)],
)
def test_what_gains_no_class_stays_where_it_is(
    host: Host, pool: int, kind: str, stored: str, codec: int
) -> None:
    put(host, kind, 5, 1, compress=stored)
    before = slot_of(host, 5)
    assert before.codec == codec
    assert not host.recompress_page(pool, 0, 5, "zstd")
    assert slot_of(host, 5) == before
    assert host.stats()["recompressed_pages"] == host.stats()["recompress_saved"] == 0


@pytest.mark.parametrize("compress", ["lz4", "none"])
def test_never_to_a_codec_that_is_less_dense(host: Host, pool: int, compress: str) -> None:
    put(host, "letters", 5, 1, compress="zstd")
    put(host, "letters", 6, 1, compress="lz4")
    before = slot_of(host, 5), slot_of(host, 6)
    for index in (5, 6):
        assert not host.recompress_page(pool, 0, index, compress)
    assert (slot_of(host, 5), slot_of(host, 6)) == before


def test_no_such_page(host: Host, pool: int) -> None:
    assert not host.recompress_page(pool, 0, 5, "zstd")
    assert not host.recompress_page(pool, 0, 2**32, "zstd")
    with pytest.raises(KeyError):
        host.recompress_page(7, 0, 5, "zstd")


def test_put_again_it_has_its_own_codec_again(host: Host, pool: int) -> None:
    put(host, "letters", 5, 1)
    assert host.recompress_page(pool, 0, 5, "zstd")
    put(host, "letters", 5, 1)
    assert slot_of(host, 5).codec == LZ4
    assert host.recompress_page(pool, 0, 5, "zstd")


def test_damage_is_not_signed_anew(host: Host, pool: int) -> None:
    put(host, "letters", 5, 1)
    flip_bit(Path(host.path), slot_of(host, 5).payload_at + 30, 3)
    before = slot_of(host, 5)
    assert not host.recompress_page(pool, 0, 5, "zstd")
    assert slot_of(host, 5) == before
    assert host.stats()["checksum_errors"] == 0
    with pytest.raises(PageDamagedError):
        read_page(host, 0, 0, 5)


def fill(host: Host, limit: int) -> int:
    """How many pages were taken until there was no room for one."""
    host.limit = limit
    index = 1
    while host.put_page(0, 0, index, make_page("letters", index)):
        index += 1
    return index - 1


def test_full_pool_gets_room_again(host: Host, pool: int) -> None:
    """Its memory is all held: pages move into slots that are free, what they leave does for others,
    and in the end slabs are empty."""
    stored = fill(host, 4 * MIB)
    before = host.stats()
    for _ in range(10):
        recompress(host, 1, stored)
        assert used(host) <= before["mem_used_total"]
        pack(host)
    after = host.stats()
    assert after["recompressed_pages"] > 0.8 * stored
    assert after["mem_used_total"] < 0.75 * before["mem_used_total"]
    assert put(host, "letters", stored + 1, stored // 4) == stored // 4
    check(host, "letters", 1, stored + stored // 4)


def test_full_pool_takes_replacements_as_before(host: Host, pool: int) -> None:
    """The last 1 % is theirs."""
    stored = fill(host, 16 * MIB)
    most = host.stats()["mem_used_total"]
    recompress(host, 1, stored)
    assert used(host) <= most
    for index in range(1, 20):
        assert host.put_page(0, 0, index, make_page("noise", index), keep_old=True)


def test_room_for_a_put_is_left(host: Host, pool: int) -> None:
    """So much as a slab, of any class: it is not spent on the copies."""
    put(host, "letters", 1, 1000)
    host.limit = (used(host) + 65536) * 100 // 99 + 1
    for index in range(1, 1001):
        host.recompress_page(0, 0, index, "zstd")
        host.give_back()
        assert used(host) + 65536 <= host.limit - host.limit // 100
    assert host.stats()["recompressed_pages"] > 100


def test_above_a_lowered_limit_nothing_grows(host: Host, pool: int) -> None:
    put(host, "letters", 1, 1000)
    host.limit = MIB
    before = used(host)
    recompress(host, 1, 1000)
    assert used(host) <= before
    check(host, "letters", 1, 1000)
