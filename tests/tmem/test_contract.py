# SPDX-License-Identifier: BSD-3-Clause
"""The contract of tmem, on the reference in Python and on the native store."""

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.tmem.model import Store
from tests.tmem.pages import KINDS, make_page

A, B = make_page("text", 1), make_page("noise", 2)


def get(store: Store, pool: int, obj: int = 0, index: int = 0) -> bytes | None:
    into = bytearray(PAGE)
    return bytes(into) if store.get_page(pool, obj, index, into) else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compress", ["lz4", "zstd", "none"])
def test_put_get(store: Store, pool: int, kind: str, compress: str) -> None:
    page = make_page(kind, 3)
    assert store.put_page(pool, 1, 2, page, compress=compress)
    assert get(store, pool, 1, 2) == page


def test_get_of_nothing(store: Store, pool: int) -> None:
    into = bytearray(b"x" * PAGE)
    assert not store.get_page(pool, 0, 0, into)
    assert into == b"x" * PAGE


def test_get_again(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    assert get(store, pool) == get(store, pool) == A


def test_put_copies(store: Store, pool: int) -> None:
    page = bytearray(B)
    store.put_page(pool, 0, 0, page)
    page[:] = A
    assert get(store, pool) == B


def test_put_put_get(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.put_page(pool, 0, 0, B)
    assert get(store, pool) == B


def test_handles_are_apart(store: Store, pool: int) -> None:
    other = store.new_pool()
    handles = [(pool, 0, 0), (pool, 0, 1), (pool, 1, 0), (pool, 256, 0), (other, 0, 0)]
    for n, handle in enumerate(handles):
        store.put_page(*handle, make_page("same", n))
    for n, handle in enumerate(handles):
        assert get(store, *handle) == make_page("same", n)


@pytest.mark.parametrize("obj", [0, 1 << 63, 2**64 - 1])
@pytest.mark.parametrize("index", [0, 65535, 65536, 2**32 - 1])
def test_widest_handles(store: Store, pool: int, obj: int, index: int) -> None:
    assert store.put_page(pool, obj, index, A)
    assert get(store, pool, obj, index) == A


def test_index_over_32_bits_is_rejected(store: Store, pool: int) -> None:
    assert not store.put_page(pool, 0, 1 << 32, A)
    assert get(store, pool, 0, 1 << 32) is None
    assert not store.flush_page(pool, 0, 1 << 32)
    assert get(store, pool, 0, 0) is None


def test_flush_page(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.put_page(pool, 0, 1, B)
    assert store.flush_page(pool, 0, 0)
    assert get(store, pool, 0, 0) is None
    assert get(store, pool, 0, 1) == B


def test_flush_page_of_nothing(store: Store, pool: int) -> None:
    assert not store.flush_page(pool, 0, 0)


def test_get_get(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.flush_page(pool, 0, 0)
    assert [get(store, pool) for _ in range(3)] == [None] * 3


def test_flush_object(store: Store, pool: int) -> None:
    for index in range(40):
        store.put_page(pool, 7, index * 300, A)
    store.put_page(pool, 8, 0, B)
    assert store.flush_object(pool, 7) == 40
    assert all(get(store, pool, 7, index * 300) is None for index in range(40))
    assert get(store, pool, 8, 0) == B


def test_flush_object_of_nothing(store: Store, pool: int) -> None:
    assert store.flush_object(pool, 7) == 0


def test_destroy_pool(store: Store, pool: int) -> None:
    other = store.new_pool()
    store.put_page(pool, 0, 0, A)
    store.put_page(other, 0, 0, B)
    assert store.destroy_pool(pool) == 1
    assert get(store, other) == B


def test_pool_after_destroy(store: Store, pool: int) -> None:
    store.destroy_pool(pool)
    with pytest.raises(KeyError):
        store.put_page(pool, 0, 0, A)
    with pytest.raises(KeyError):
        store.destroy_pool(pool)


def test_new_pool_is_empty(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.set_max_pages(pool, 1)
    store.destroy_pool(pool)
    again = store.new_pool()
    assert get(store, again) is None
    assert store.put_page(again, 0, 0, A)
    assert store.put_page(again, 0, 1, A)


def test_frozen_pool_takes_no_new_page(store: Store, pool: int) -> None:
    store.freeze(pool, True)
    assert not store.put_page(pool, 0, 0, A)
    store.freeze(pool, False)
    assert store.put_page(pool, 0, 0, A)


def test_frozen_pool_replaces(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.freeze(pool, True)
    assert store.put_page(pool, 0, 0, B)
    assert get(store, pool) == B


def test_frozen_pool_gets_and_flushes(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.freeze(pool, True)
    assert get(store, pool) == A
    assert store.flush_page(pool, 0, 0)


def test_freezing_one_pool_only(store: Store, pool: int) -> None:
    store.freeze(store.new_pool(), True)
    assert store.put_page(pool, 0, 0, A)


def test_max_pages(store: Store, pool: int) -> None:
    store.set_max_pages(pool, 2)
    assert [store.put_page(pool, 0, index, A) for index in range(4)] == [True, True, False, False]
    assert store.put_page(pool, 0, 1, B)
    store.flush_page(pool, 0, 0)
    assert store.put_page(pool, 0, 3, A)


def test_max_pages_below_use(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.set_max_pages(pool, 0)
    assert get(store, pool) == A
    assert store.put_page(pool, 0, 0, B)
    assert not store.put_page(pool, 0, 1, B)


def test_rejected_put_flushes_the_old_page(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.limit = 0
    assert not store.put_page(pool, 0, 0, B)
    assert get(store, pool) is None
    assert store.stats()["dup_puts_flushed"] == 1


def test_rejected_put_keeps_the_old_page(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.limit = 0
    assert not store.put_page(pool, 0, 0, B, keep_old=True)
    assert get(store, pool) == A
    assert store.stats()["dup_puts_flushed"] == 0


def test_keep_old_of_a_taken_put(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    assert store.put_page(pool, 0, 0, B, keep_old=True)
    assert get(store, pool) == B


def test_limit_raised_again(store: Store, pool: int) -> None:
    store.limit = 0
    store.put_page(pool, 0, 0, A)
    store.limit = 1 << 30
    assert store.put_page(pool, 0, 0, A)
    assert store.limit == 1 << 30


def test_maintain_changes_no_page(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.put_page(pool, 0, 1, B)
    store.maintain()
    store.maintain(all=True)
    assert (get(store, pool, 0, 0), get(store, pool, 0, 1)) == (A, B)


@pytest.mark.parametrize("size", [0, 4095, 4097, 8192])
def test_other_sizes_are_refused(store: Store, pool: int, size: int) -> None:
    with pytest.raises(ValueError, match="4096"):
        store.put_page(pool, 0, 0, bytes(size))


def test_unknown_codec_is_refused(store: Store, pool: int) -> None:
    with pytest.raises(ValueError, match="lz4, zstd, none"):
        store.put_page(pool, 0, 0, A, compress="gzip")


def test_counters(store: Store, pool: int) -> None:
    store.put_page(pool, 0, 0, A)
    store.put_page(pool, 0, 0, bytes(PAGE))
    get(store, pool, 0, 0)
    get(store, pool, 0, 1)
    store.flush_page(pool, 0, 1)
    expected = {"puts": 2, "good_puts": 2, "dup_puts_replaced": 1, "gets": 2, "found_gets": 1}
    expected |= {"flushes": 1, "flushes_found": 0, "stored_pages": 1, "same_filled_pages": 1}
    assert store.stats().items() >= expected.items()
