# SPDX-License-Identifier: BSD-3-Clause
"""Codecs through the store: each kind of page at each codec, and lengths at every class's edge."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.tmem._tmem import COMPRESS, Host, compress_number
from tests.tmem.arena_file import CLASSES, CODECS, slots_of
from tests.tmem.pages import KINDS, make_page, read_page
from tests.tmem.test_damage import filled


@pytest.mark.parametrize("compress", COMPRESS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back(host: Host, kind: str, compress: str) -> None:
    pool = host.new_pool()
    for tag in range(100):
        assert host.put_page(pool, 0, tag, make_page(kind, tag), compress=compress)
    assert all(read_page(host, pool, 0, tag) == make_page(kind, tag) for tag in range(100))


@pytest.mark.parametrize("compress", ["lz4", "zstd"])
def test_around_the_longest_compressed_page(host: Host, compress: str) -> None:
    """One byte more than 4048 is kept raw; both sides are met, and come back."""
    pool = host.new_pool()
    for amount in range(3990, 4064):
        page = make_page("sized", amount * 1000)
        host.put_page(pool, 0, amount, page, compress=compress)
        assert read_page(host, pool, 0, amount) == page
    lengths = {slot.codec: slot.length for slot in slots_of(Path(host.path))}
    found = {CODECS[slot.codec] for slot in slots_of(Path(host.path))}
    assert found == {compress, "raw"}
    assert max(slot.length for slot in slots_of(Path(host.path)) if slot.codec != 2) <= 4048
    assert lengths[2] == 4096


def test_lengths_at_every_edge_of_a_class(host: Host) -> None:
    """A page lies in the smallest slot that holds it; every class is filled to its last byte."""
    pool, lengths = host.new_pool(), set()
    for number in range(2, 8080):
        # The noise in front, and behind: LZ4 leaves out different lengths.
        page = make_page("sized", number // 2 * 1000)[:: 1 - number % 2 * 2]
        host.put_page(pool, 0, 0, page)
        stats = host.stats()
        length = stats["compr_data_size"]
        smallest = min(payload for _, payload in CLASSES if payload >= length)
        assert stats["live_slot_bytes"] == 32 + smallest
        assert read_page(host, pool, 0, 0) == page
        lengths.add(length)
    assert {payload for _, payload in CLASSES[1:] if payload >= 64} <= lengths


@pytest.mark.parametrize("compress", COMPRESS)
def test_incompressible_is_kept_raw(host: Host, compress: str) -> None:
    host.put_page(host.new_pool(), 0, 0, make_page("noise", 0), compress=compress)
    assert host.stats()["huge_pages"] == 1
    assert host.stats()["compr_data_size"] == 4096


@pytest.mark.parametrize("compress", COMPRESS)
def test_same_filled_is_eight_bytes(host: Host, compress: str) -> None:
    host.put_page(host.new_pool(), 0, 0, make_page("same", 5), compress=compress)
    assert host.stats()["same_filled_pages"] == 1
    assert host.stats()["compr_data_size"] == 8


@pytest.mark.parametrize("byte", [0, 7, 8, 4088, 4095])
def test_one_byte_from_same_filled(host: Host, byte: int) -> None:
    pool, page = host.new_pool(), bytearray(4096)
    page[byte] = 1
    host.put_page(pool, 0, 0, page)
    assert host.stats()["same_filled_pages"] == 0
    assert read_page(host, pool, 0, 0) == bytes(page)


def test_codec_changes_with_the_page(host: Host) -> None:
    pool = host.new_pool()
    for compress in ("lz4", "zstd", "none", "lz4"):
        host.put_page(pool, 0, 0, make_page("text", 1), compress=compress)
        (slot,) = slots_of(Path(host.path))
        assert CODECS[slot.codec] == {"none": "raw"}.get(compress, compress)


def test_page_from_an_unaligned_buffer(host: Host) -> None:
    pool, page = host.new_pool(), make_page("half", 9)
    host.put_page(pool, 0, 0, memoryview(b"x" + page)[1:])
    into = bytearray(4097)
    assert host.get_page(pool, 0, 0, memoryview(into)[1:])
    assert bytes(into) == b"\0" + page


def test_codec_names() -> None:
    assert [compress_number(name) for name in COMPRESS] == [0, 1, 2]
    with pytest.raises(ValueError, match="must be one of"):
        compress_number("LZ4")


@given(page=st.binary(max_size=64), amount=st.integers(1, 4096), compress=st.sampled_from(COMPRESS))
def test_any_page(page: bytes, amount: int, compress: str) -> None:
    whole = (page * amount)[:4096].ljust(4096, b"\xff")
    with filled() as host:
        assert host.put_page(0, 0, 0, whole, compress=compress)
        assert read_page(host, 0, 0, 0) == whole
