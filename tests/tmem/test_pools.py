# SPDX-License-Identifier: BSD-3-Clause
"""The four kinds of pools: who finds what, what a get removes, and what comes back; on the
reference in Python and on the native store."""

import pytest

from preswapd.tmem._tmem import EXCLUSIVE_GETS, PERSISTENT, SHARED
from preswapd.units import PAGE_SIZE as PAGE
from tests.tmem.model import Store
from tests.tmem.pages import make_page

A, B = make_page("text", 1), make_page("noise", 2)
UUID, OTHER = b"one secret of 16", b"another of these"
KINDS = {
    "persistent": PERSISTENT,
    "ephemeral": 0,
    "shared-persistent": SHARED | PERSISTENT,
    "shared-ephemeral": SHARED,
}
REMOVING = {
    "ephemeral": 0,
    "persistent": PERSISTENT | EXCLUSIVE_GETS,
    "shared-ephemeral": SHARED | EXCLUSIVE_GETS,
    "shared-persistent": SHARED | PERSISTENT | EXCLUSIVE_GETS,
}
STAYING = {key: flags for key, flags in KINDS.items() if flags}
every_kind = pytest.mark.parametrize("flags", KINDS.values(), ids=KINDS)


def get(store: Store, pool: int, obj: int = 0, index: int = 0) -> bytes | None:
    into = bytearray(PAGE)
    return bytes(into) if store.get_page(pool, obj, index, into) else None


@every_kind
def test_put_get(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    assert store.put_page(pool, 0, 0, A)
    assert get(store, pool) == A


@every_kind
def test_put_put_get(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    store.put_page(pool, 0, 0, B)
    assert get(store, pool) == B


@every_kind
def test_put_rejected_put_get(store: Store, flags: int) -> None:
    """Whatever became of either put, the older page is gone."""
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    store.limit = 0
    assert not store.put_page(pool, 0, 0, B)
    assert get(store, pool) is None


@every_kind
def test_get_get(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    store.flush_page(pool, 0, 0)
    assert [get(store, pool) for _ in range(3)] == [None] * 3
    store.put_page(pool, 0, 0, B)
    assert get(store, pool) == B


@every_kind
def test_put_flush_get(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    store.put_page(pool, 0, 0, B)
    assert store.flush_page(pool, 0, 0)
    assert get(store, pool) is None


@every_kind
def test_put_flush_object_get(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 7, A)
    assert store.flush_object(pool, 0) == 1
    assert get(store, pool, 0, 7) is None


@pytest.mark.parametrize("flags", REMOVING.values(), ids=REMOVING)
def test_get_removes(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    assert get(store, pool) == A
    assert [get(store, pool), get(store, pool)] == [None, None]
    assert store.stats()["stored_pages"] == 0


@pytest.mark.parametrize("flags", REMOVING.values(), ids=REMOVING)
def test_put_after_a_get_that_removed(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    get(store, pool)
    store.put_page(pool, 0, 0, B)
    assert get(store, pool) == B


@pytest.mark.parametrize("flags", STAYING.values(), ids=STAYING)
def test_get_leaves(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    assert get(store, pool) == get(store, pool) == A


def test_get_that_removes_is_no_flush(store: Store) -> None:
    pool = store.new_pool(flags=0)
    store.put_page(pool, 0, 0, A)
    get(store, pool)
    expected = {"gets": 1, "found_gets": 1, "flushes": 0, "evicted_pages": 0}
    assert store.stats().items() >= expected.items()


def test_flush_after_a_get_that_removed(store: Store) -> None:
    pool = store.new_pool(flags=0)
    store.put_page(pool, 0, 0, A)
    get(store, pool)
    assert not store.flush_page(pool, 0, 0)


def test_get_that_removes_makes_room_in_a_full_pool(store: Store) -> None:
    pool = store.new_pool(flags=0)
    store.set_max_pages(pool, 1)
    store.put_page(pool, 0, 0, A)
    assert not store.put_page(pool, 0, 1, B)
    get(store, pool)
    assert store.put_page(pool, 0, 1, B)


@every_kind
def test_frozen_pool(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    store.freeze(pool, True)
    assert not store.put_page(pool, 0, 1, A)
    assert store.put_page(pool, 0, 0, B)
    assert get(store, pool) == B


def test_frozen_pool_after_a_get_that_removed(store: Store) -> None:
    pool = store.new_pool(flags=0)
    store.put_page(pool, 0, 0, A)
    store.freeze(pool, True)
    get(store, pool)
    assert not store.put_page(pool, 0, 0, B)


@pytest.mark.parametrize("flags", [SHARED, SHARED | PERSISTENT])
def test_shared_pool_is_joined(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    assert store.new_pool(UUID, flags) == pool


@pytest.mark.parametrize("flags", [SHARED, SHARED | PERSISTENT])
def test_wrong_uuid_gets_nothing(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, flags)
    store.put_page(pool, 0, 0, A)
    stranger = store.new_pool(OTHER, flags)
    assert stranger != pool
    assert get(store, stranger) is None


@pytest.mark.parametrize("at", range(16))
def test_every_byte_of_the_uuid_counts(store: Store, at: int) -> None:
    wrong = UUID[:at] + b"!" + UUID[at + 1 :]
    assert store.new_pool(UUID, SHARED) != store.new_pool(wrong, SHARED)


@pytest.mark.parametrize("flags", [0, PERSISTENT])
def test_private_pool_is_not_joined(store: Store, flags: int) -> None:
    private = store.new_pool(UUID, flags)
    assert store.new_pool(UUID, flags) != private
    assert store.new_pool(UUID, flags | SHARED) != private


def test_shared_pool_needs_a_uuid(store: Store) -> None:
    with pytest.raises(ValueError, match="uuid"):
        store.new_pool(bytes(16), SHARED)


@pytest.mark.parametrize("flags", [SHARED | PERSISTENT, SHARED | EXCLUSIVE_GETS])
def test_join_with_other_flags_is_refused(store: Store, flags: int) -> None:
    pool = store.new_pool(UUID, SHARED)
    with pytest.raises(ValueError, match="other flags"):
        store.new_pool(UUID, flags)
    assert store.destroy_pool(pool) == 0
    assert not store.has_pool(pool)


@pytest.mark.parametrize("flags", [SHARED, SHARED | PERSISTENT])
def test_shared_pool_goes_with_its_last_user(store: Store, flags: int) -> None:
    pool, _, _ = (store.new_pool(UUID, flags) for _ in range(3))
    store.put_page(pool, 0, 0, A)
    assert [store.destroy_pool(pool), store.destroy_pool(pool)] == [0, 0]
    assert get(store, pool) == A
    assert store.destroy_pool(pool) == 1
    assert not store.has_pool(pool)


def test_shared_pool_made_again_is_empty(store: Store) -> None:
    pool = store.new_pool(UUID, SHARED)
    store.put_page(pool, 0, 0, A)
    store.destroy_pool(pool)
    assert get(store, store.new_pool(UUID, SHARED)) is None


def test_uuid_of_a_destroyed_pool_takes_other_flags(store: Store) -> None:
    store.destroy_pool(store.new_pool(UUID, SHARED))
    pool = store.new_pool(UUID, SHARED | PERSISTENT)
    assert store.put_page(pool, 0, 0, A)


def test_number_of_a_destroyed_pool_finds_nothing(store: Store) -> None:
    """Though the queue of the oldest may still name its pages."""
    pool = store.new_pool(flags=0)
    store.put_page(pool, 0, 0, A)
    store.destroy_pool(pool)
    assert store.new_pool(flags=PERSISTENT) == pool
    assert get(store, pool) is None


def test_kinds_count_apart(store: Store) -> None:
    for flags in KINDS.values():
        store.put_page(store.new_pool(UUID if flags != SHARED else OTHER, flags), 0, 0, A)
    assert store.stats().items() >= {"stored_pages": 4, "ephemeral_pages": 2}.items()
