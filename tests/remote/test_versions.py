# SPDX-License-Identifier: BSD-3-Clause
"""Which versions are alive, against a model that lists them all."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.remote.native import LENGTH_BITS, built

BUCKET = 4096
SECOND = 10**9
FIRST = BUCKET  # version 0 is none


class Versions:
    """The C's."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.versions_draw.restype = ctypes.c_uint64
        library.versions_note.restype = library.versions_next_gone.restype = ctypes.c_bool
        self.state = ctypes.create_string_buffer(1 << 18)
        assert library.versions_init(self.state) == 0

    def set_most(self, size: int, ns: int) -> None:
        self.library.versions_set_most(self.state, ctypes.c_uint64(size), ctypes.c_uint64(ns))

    def draw(self, now: int) -> int:
        return int(self.library.versions_draw(self.state, ctypes.c_uint64(now)))

    def note(self, version: int, size: int) -> bool:
        return bool(self.library.versions_note(self.state, word(version, size)))

    def forget(self, version: int, size: int, may_be_stored: bool = True) -> None:
        self.library.versions_forget(self.state, word(version, size), may_be_stored)

    def tick(self, now: int) -> None:
        self.library.versions_tick(self.state, ctypes.c_uint64(now))

    def alive(self) -> tuple[int, int]:
        pages, size = ctypes.c_uint64(), ctypes.c_uint64()
        self.library.versions_alive(self.state, ctypes.byref(pages), ctypes.byref(size))
        return pages.value, size.value

    def gone(self) -> list[int]:
        first, n, found = ctypes.c_uint64(), ctypes.c_uint(), list[int]()
        while self.library.versions_next_gone(self.state, ctypes.byref(first), ctypes.byref(n)):
            found += range(first.value, first.value + n.value)
        return found


def word(version: int, size: int) -> ctypes.c_uint64:
    return ctypes.c_uint64(version << LENGTH_BITS | size)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return built(tmp_path_factory.mktemp("versions"))


@contextmanager
def made(library: ctypes.CDLL, size: int = 0, ns: int = 3600 * SECOND) -> Iterator[Versions]:
    versions = Versions(library)
    versions.set_most(size, ns)
    yield versions
    library.versions_destroy(versions.state)


def test_versions_grow_and_begin_above_none(library: ctypes.CDLL) -> None:
    with made(library) as versions:
        assert [versions.draw(5) for _ in range(3 * BUCKET)] == list(range(FIRST, 4 * BUCKET))


def test_without_a_bound_none_goes(library: ctypes.CDLL) -> None:
    with made(library) as versions:
        for _ in range(3 * BUCKET):
            assert versions.note(versions.draw(5), 100)
        versions.tick(6)
        assert versions.alive() == (3 * BUCKET, 300 * BUCKET)
        assert versions.gone() == []


def test_what_is_forgotten_is_to_be_deleted_where_it_may_be_stored(library: ctypes.CDLL) -> None:
    with made(library) as versions:
        a, b = versions.draw(5), versions.draw(5)
        versions.note(a, 100)
        versions.note(b, 200)
        versions.forget(a, 100)
        versions.forget(b, 200, may_be_stored=False)
        assert versions.alive() == (0, 0)
        assert versions.gone() == [a]


def test_what_is_too_old_goes_and_the_store_knows_by_itself(library: ctypes.CDLL) -> None:
    with made(library, ns=100) as versions:
        old = versions.draw(0)
        versions.note(old, 100)
        versions.tick(99)
        assert versions.alive() == (1, 100)
        versions.tick(100)
        assert versions.alive() == (0, 0)
        assert versions.gone() == []
        assert not versions.note(old, 100)
        young = versions.draw(100)
        assert young > old
        assert versions.note(young, 100)


def test_a_full_ring_of_deletes_forgets_some(library: ctypes.CDLL) -> None:
    with made(library) as versions:
        drawn = [versions.draw(5) for _ in range(20_000)]
        for version in drawn:
            versions.note(version, 100)
            versions.forget(version, 100)
        gone = versions.gone()
        assert gone == drawn[: len(gone)]
        assert len(gone) == 16_384
        assert versions.gone() == []


@pytest.mark.parametrize("most", [BUCKET * 50, BUCKET * 500])
def test_the_oldest_go_first_and_enough_of_them(library: ctypes.CDLL, most: int) -> None:
    """Never above the bound, once a bucket has begun; and most of it is used."""
    with made(library, size=most) as versions:
        drawn, deleted = [], set[int]()
        for i in range(4 * most // 100):
            drawn.append(versions.draw(5))
            versions.note(drawn[-1], 100)
            if i % 64 == 0:
                assert versions.alive()[1] <= most + most // 16
                deleted |= set(versions.gone())
        pages, size = versions.alive()
        deleted |= set(versions.gone())
        assert size >= most * 3 // 4
        assert deleted == set(drawn[:-pages])


class Machine(RuleBasedStateMachine):
    """Any history.  What is alive is what was noted, not forgotten, and not below the floor; the
    floor is where a version can be noted, which the model reads off it."""

    library: ctypes.CDLL

    @initialize(most=st.sampled_from([0, 50_000, 1_000_000]), ns=st.sampled_from([1000, 10**9]))
    def begin(self, most: int, ns: int) -> None:
        self.versions = Versions(self.library)
        self.most, self.ns, self.now = most, ns, 1
        self.versions.set_most(most, ns)
        self.drawn: dict[int, int] = {}  # when
        self.noted: dict[int, int] = {}  # bytes
        self.forgotten: list[int] = []
        self.floor = FIRST

    @rule(n=st.sampled_from([1, 10, 300]), size=st.integers(27, 4115), forget=st.integers(1, 9))
    def set_pages(self, n: int, size: int, forget: int) -> None:
        """Every now and then one of them is written again at once."""
        for i in range(n):
            version = self.versions.draw(self.now)
            assert version > max(self.drawn, default=0)
            self.drawn[version] = self.now
            assert self.versions.note(version, size), "it is the youngest"
            self.noted[version] = size
            if i % forget == 0:
                self.forget(version)
        self.raised(may_be_young=True)

    def forget(self, version: int) -> None:
        self.versions.forget(version, self.noted.pop(version))
        if version >= self.floor:
            self.forgotten.append(version)

    @precondition(lambda self: self.noted)
    @rule(data=st.data())
    def forget_one(self, data: st.DataObject) -> None:
        self.forget(data.draw(st.sampled_from(list(self.noted))))

    @rule(ns=st.sampled_from([1, 100, 500, 10**8, 10**10]))
    def tick(self, ns: int) -> None:
        self.now += ns
        self.versions.tick(self.now)
        self.raised(may_be_young=False)
        alive = [version for version in self.noted if version >= self.floor]
        # A bucket goes when its last version is too old.
        newest_of = {version // BUCKET: version for version in self.drawn}
        for version in alive:
            assert self.drawn[newest_of[version // BUCKET]] > self.now - self.ns

    @rule(most=st.sampled_from([0, 50_000, 1_000_000]))
    def set_most(self, most: int) -> None:
        self.most = most
        self.versions.set_most(most, self.ns)
        self.versions.tick(self.now)
        self.raised(may_be_young=True)

    def raised(self, *, may_be_young: bool) -> None:
        """The floor, as the C's buckets have it: no lower than it was."""
        pages, size = self.versions.alive()
        while sum(version >= self.floor for version in self.noted) > pages:
            self.floor += BUCKET
        if self.most and not may_be_young:
            assert size <= self.most

    @invariant()
    def alive_is_as_in_the_model(self) -> None:
        if hasattr(self, "versions"):
            alive = [size for version, size in self.noted.items() if version >= self.floor]
            assert self.versions.alive() == (len(alive), sum(alive))

    def teardown(self) -> None:
        if hasattr(self, "versions"):
            gone = self.versions.gone()
            assert set(gone) <= self.drawn.keys(), "what was never stored is deleted"
            self.library.versions_destroy(self.versions.state)


def test_any_history(library: ctypes.CDLL) -> None:
    Machine.library = library
    run_state_machine_as_test(Machine)
