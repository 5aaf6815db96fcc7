# SPDX-License-Identifier: BSD-3-Clause
"""Killed after any store of an operation, or of the recovery after it: no page is lost or stale.

Each state of the arena file that a kill could leave is copied and read back by a fresh host: a
page is what it was before the operation or what it is after it, and once an operation is
acknowledged only the latter.  Then everything is flushed, and another kill brings nothing back.
"""

import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from preswapd.errors import PageDamagedError
from preswapd.tmem._tmem import EXCLUSIVE_GETS, PERSISTENT, SHARED, Host
from tests.stepping import Operation, Stepper
from tests.tmem.arena_file import CLASSES
from tests.tmem.model import Model
from tests.tmem.pages import read_page
from tests.tmem.stepped import LIMIT, POOL, run_operation

Handle = tuple[int, int, int]
Pages = dict[Handle, bytes]
Content = tuple[tuple[int, bytes], ...]

FEW = [["put", 0, index, "text", index] for index in range(3)]
LETTERS = [*FEW, ["put", 0, 5, "letters", 5]]
RECARVE = [
    ["put", 0, 0, "text", 1],
    ["put", 0, 1, "text", 2],
    ["forge", 1, 0, 15],
    ["flush_page", 0, 0, 0],
    ["flush_object", 0, 1],
]


UUID, OTHER = b"one secret of 16".hex(), b"another of these".hex()
EPHEMERAL = [["new_pool", "00" * 16, 0], ["fill", 1, 3]]
# No room for a slab of another class before pool 1's pages have gone.
FULL = [*FEW, *EPHEMERAL, ["limit", 60_000]]


def sparse() -> list[Operation]:
    """More than a megabyte, a page in each slab, and one page that fits into another slab."""
    setup: list[Operation] = []
    for obj, (slots, payload) in enumerate(CLASSES[3:20]):
        count = slots + (obj == 16)
        length = payload - 32
        setup += [["put", obj, i, "sized", length * 1000 + i] for i in range(count)]
        setup += [["flush_page", POOL, obj, i] for i in range(1, slots)]
    return setup


SCENARIOS: dict[str, tuple[Sequence[Operation], Sequence[Operation]]] = {
    "put_new": (FEW, [["put", 0, 9, "text", 9]]),
    "put_new_raw": ([["put", 0, 0, "noise", 0]], [["put", 0, 9, "noise", 9]]),
    "put_over": (FEW, [["put", 0, 1, "text", 9], ["put", 0, 1, "text", 10]]),
    "put_over_another_class": (FEW, [["put", 0, 1, "half", 3], ["put", 0, 1, "zeros", 0]]),
    "put_carves": ([], [["put", 0, 0, "text", 0]]),
    "put_carves_again": (RECARVE, [["put", 0, 2, "half", 1]]),
    "put_rejected": ([*FEW, ["limit", 0]], [["put", 0, 1, "text", 9]]),
    "put_rejected_keeps": ([*FEW, ["limit", 0]], [["put_keep_old", 0, 1, "text", 9]]),
    "flush_page": (FEW, [["flush_page", 0, 0, 1], ["put", 0, 1, "text", 9]]),
    "flush_object": (FEW, [["flush_object", 0, 0]]),
    "destroy_pool": (FEW, [["destroy_pool", 0], ["new_pool"]]),
    "new_pool": (FEW, [["new_pool"]]),
    "give_back": ([*FEW, ["flush_object", 0, 0]], [["maintain"], ["put", 0, 0, "text", 0]]),
    "move": (sparse(), [["maintain"]]),
    "pack": (sparse(), [["pack"]]),
    "put_staged": ([["stage"], *FEW], [["put", 0, 9, "text", 9], ["put", 0, 1, "text", 9]]),
    "put_over_staged": ([["stage"], *FEW], [["put", 0, 1, "zeros", 0]]),
    "settle": ([["stage"], *FEW, ["put", 0, 3, "noise", 3]], [["settle"]]),
    "recompress": (LETTERS, [["recompress_page", 0, 0, 5, "zstd"], ["put", 0, 5, "text", 1]]),
    "recompress_staged": (
        [["stage"], *LETTERS],
        [["recompress_page", 0, 0, 5, "zstd"], ["settle"]],
    ),
    "recompress_carves_again": (
        [["put", 0, 5, "letters", 5], *RECARVE],
        [["recompress_page", 0, 0, 5, "zstd"]],
    ),
    "get_removes": (
        [["new_pool", "00" * 16, PERSISTENT | EXCLUSIVE_GETS], ["fill", 1, 2]],
        [["get", 1, 0, 0], ["get", 1, 0, 0]],
    ),
    "get_removes_ephemeral": ([*FEW, *EPHEMERAL], [["get", 1, 0, 0]]),
    "new_shared_pool": (
        FEW,
        [["new_pool", UUID, SHARED | PERSISTENT], ["new_pool", OTHER, SHARED]],
    ),
    "leave_shared_pool": (
        [*[["new_pool", UUID, SHARED | PERSISTENT]] * 2, ["fill", 1, 1]],
        [["destroy_pool", 1], ["destroy_pool", 1]],
    ),
    "put_ephemeral": ([*FEW, *EPHEMERAL[:1]], [["put_in", 1, 0, "text", 9]]),
    "destroy_ephemeral_pool": ([*FEW, *EPHEMERAL], [["destroy_pool", 1], ["new_pool"]]),
    "put_evicts": (FULL, [["put", 0, 9, "half", 3], ["put", 0, 1, "text", 9]]),
    "maintain_evicts": ([*FULL, ["limit", 50_000]], [["maintain"]]),
}


@pytest.fixture(scope="module")
def steppers(stepping_library: Path) -> Iterator[tuple[Stepper, Stepper]]:
    """One that does the operations, one that recovers."""
    module = "tests.tmem.stepped"
    with Stepper(stepping_library, module) as acting, Stepper(stepping_library, module) as other:
        yield acting, other


def data_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """What a sparse file holds, without its holes."""
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, os.pread(file.fileno(), end - start, start)


def write_copy(path: Path, size: int, content: Content) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
        for start, data in content:
            os.pwrite(file.fileno(), data, start)


def pages_of(model: Model) -> Pages:
    """What must be there after a kill: nothing of an ephemeral pool."""
    return {
        (pool, obj, index): page
        for pool, content in model.pools.items()
        if not content.is_ephemeral
        for (obj, index), page in content.pages.items()
    }


def shared_in(host: Host, uuid: str) -> Iterator[int]:
    """The pool's id, where such a pool was there already."""
    there = [pool for pool in range(4) if host.has_pool(pool)]
    pool = host.new_pool(bytes.fromhex(uuid), SHARED | PERSISTENT)
    if pool in there:
        yield pool


def found_in(host: Host, handle: Handle) -> bytes | None:
    """The page; a pool that is gone has none."""
    try:
        return read_page(host, *handle)
    except KeyError:
        return None
    except PageDamagedError:
        return b"damaged"


@dataclass
class Checker:
    """Kills, recovers, looks; what the pages may be is in `before` and `after`."""

    recovering: Stepper
    shm: Path
    before: Pages
    after: Pages = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    states: int = 0

    def check_file(self, arena: Path) -> None:
        """A kill now, and one after each store of the recovery from it."""
        content = tuple(data_of(arena))
        if not self.is_new("killed", content):
            return
        killed, again, size = self.shm / "killed", self.shm / "again", arena.stat().st_size
        write_copy(killed, size, content)
        for _ in self.recovering.run(killed, [], [["recover"]]):
            content = tuple(data_of(killed))
            self.states += 1
            # Recoveries of many states come through the same ones.
            if self.is_new("again", content):
                write_copy(again, size, content)
                self.check_recovery(again)

    def is_new(self, what: str, content: Content) -> bool:
        pages = tuple(self.before.items()), tuple(self.after.items())
        state = hash((what, content, pages))
        fresh = state not in self.seen
        self.seen.add(state)
        return fresh

    def check_recovery(self, arena: Path) -> None:
        host = recovered(arena)
        stored, found = host.stats()["stored_pages"], 0
        for handle in self.before.keys() | self.after.keys():
            page = found_in(host, handle)
            found += page is not None
            allowed = {self.before.get(handle), self.after.get(handle)}
            assert page in allowed, f"{handle} after a kill"
        assert stored == found, "a page that nobody put"
        assert not list(shared_in(host, OTHER)), "an ephemeral pool came back"
        for pool in shared_in(host, UUID):
            assert pool == 1
        self.check_flush(host, arena)

    def check_flush(self, host: Host, arena: Path) -> None:
        for pool, obj, _ in {(pool, obj, 0) for pool, obj, _ in self.before.keys() | self.after}:
            try:
                host.flush_object(pool, obj)
            except KeyError:
                continue
        host.close()
        host = recovered(arena)
        assert host.stats()["stored_pages"] == 0, "a flushed page came back"
        host.close()


def recovered(arena: Path) -> Host:
    host = Host(arena, LIMIT, create=False)
    host.recover()
    assert arena.stat().st_blocks * 512 <= host.stats()["mem_used_total"]
    return host


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kill_after_any_store(shm: Path, steppers: tuple[Stepper, Stepper], scenario: str) -> None:
    setup, steps = SCENARIOS[scenario]
    model = Model(LIMIT)
    setup = [["new_pool"], *setup]
    for operation in setup:
        run_operation(model, operation)
    acting, recovering = steppers
    checker = Checker(recovering, shm, pages_of(model))
    assert walk(acting, checker, model, setup, steps) > 1


def walk(
    acting: Stepper,
    checker: Checker,
    model: Model,
    setup: Sequence[Operation],
    steps: Sequence[Operation],
) -> int:
    waiting, arena = list(steps), checker.shm / "arena"
    for event in acting.run(arena, setup, steps):
        if event != "change":
            checker.before = pages_of(model)
            if waiting:
                model = deepcopy(model)
                run_operation(model, waiting.pop(0))
            checker.after = pages_of(model)
        checker.check_file(arena)
    return checker.states
