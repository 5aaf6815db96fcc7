# SPDX-License-Identifier: BSD-3-Clause
"""The contract of transcendent memory in plain Python: what the native store must do.

A put may be rejected at any time, so a model cannot foretell every answer of the store.  It says
which puts must be rejected (`must_reject`), and what is true after either answer (`stored`,
`rejected`, `evict`); on its own it rejects only what it must and what finds no room, where each
page takes 4096 bytes.
"""

from collections import deque
from typing import Protocol

from typing_extensions import Buffer

from preswapd.tmem._tmem import EXCLUSIVE_GETS, PERSISTENT, SHARED
from preswapd.units import PAGE_SIZE as PAGE

COUNTERS = (
    "puts",
    "good_puts",
    "no_mem_puts",
    "dup_puts_replaced",
    "dup_puts_flushed",
    "gets",
    "found_gets",
    "flushes",
    "flushes_found",
    "evicted_pages",
)
NO_UUID = bytes(16)
# Of a stored page, beside its bytes.
HEADER = 32
# Pages that were got may be passed over, so many for each that goes.
SECOND_CHANCES = 8


class Store(Protocol):
    """What the model and the native store have in common."""

    limit: int

    def new_pool(self, uuid: bytes = ..., flags: int = ...) -> int: ...
    def has_pool(self, pool: int) -> bool: ...
    def destroy_pool(self, pool: int) -> int: ...
    def freeze(self, pool: int, frozen: bool) -> None: ...
    def set_max_pages(self, pool: int, pages: int) -> None: ...
    def set_max_bytes(self, pool: int, size: int) -> None: ...
    def put_page(
        self,
        pool: int,
        object: int,
        index: int,
        page: Buffer,
        *,
        compress: str = ...,
        keep_old: bool = ...,
    ) -> bool: ...
    def get_page(self, pool: int, object: int, index: int, into: Buffer) -> bool: ...
    def flush_page(self, pool: int, object: int, index: int) -> bool: ...
    def flush_object(self, pool: int, object: int) -> int: ...
    def recompress_page(self, pool: int, object: int, index: int, compress: str) -> bool: ...
    def evict_all(self) -> int: ...
    def pool_stats(self, pool: int) -> dict[str, int]: ...
    def maintain(self, all: bool = ...) -> None: ...
    def pack(self) -> bool: ...
    def set_staging(self, on: bool) -> None: ...
    def settle(self, milliseconds: int = ...) -> None: ...
    def stats(self) -> dict[str, int]: ...


class Pool:
    def __init__(self, uuid: bytes, flags: int) -> None:
        self.uuid = uuid
        self.flags = flags
        self.users = 0
        self.pages: dict[tuple[int, int], bytes] = {}
        self.ages: dict[tuple[int, int], int] = {}
        self.got: set[tuple[int, int]] = set()  # since they were put, or passed over
        self.frozen = False
        self.max_pages = self.max_bytes = 2**64 - 1
        self.evicted = self.evicted_by_itself = 0

    @property
    def size(self) -> int:
        """As large as pages can be: nothing is compressed here."""
        return len(self.pages) * (HEADER + PAGE)

    @property
    def is_ephemeral(self) -> bool:
        return not self.flags & PERSISTENT

    @property
    def gets_remove(self) -> bool:
        return bool(self.flags & EXCLUSIVE_GETS) or not self.flags & (PERSISTENT | SHARED)


class Model:
    """Pools of pages in dictionaries; every answer follows from the contract."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pools: dict[int, Pool] = {}
        self.count = dict.fromkeys(COUNTERS, 0)
        self.clock = 0

    def new_pool(self, uuid: bytes = NO_UUID, flags: int = PERSISTENT) -> int:
        if flags & SHARED and uuid == NO_UUID:
            raise ValueError("a shared pool needs a uuid")
        pool = self.shared(uuid) if flags & SHARED else None
        if pool is None:
            pool = next(i for i in range(len(self.pools) + 1) if i not in self.pools)
            self.pools[pool] = Pool(uuid, flags)
        if self.pools[pool].flags != flags:
            raise ValueError("the shared pool with this uuid has other flags")
        self.pools[pool].users += 1
        return pool

    def shared(self, uuid: bytes) -> int | None:
        for number, pool in self.pools.items():
            if pool.flags & SHARED and pool.uuid == uuid:
                return number
        return None

    def has_pool(self, pool: int) -> bool:
        return pool in self.pools

    def destroy_pool(self, pool: int) -> int:
        if self.find(pool).users > 1:
            self.pools[pool].users -= 1
            return 0
        dropped = len(self.find(pool).pages)
        self.count["flushes"] += dropped
        self.count["flushes_found"] += dropped
        del self.pools[pool]
        return dropped

    def find(self, pool: int) -> Pool:
        if pool not in self.pools:
            raise KeyError(f"no pool {pool}")
        return self.pools[pool]

    def freeze(self, pool: int, frozen: bool) -> None:
        self.find(pool).frozen = frozen

    def set_max_pages(self, pool: int, pages: int) -> None:
        self.find(pool).max_pages = pages

    def set_max_bytes(self, pool: int, size: int) -> None:
        into = self.find(pool)
        if not into.is_ephemeral:
            raise ValueError("only an ephemeral pool has a limit of its own in bytes")
        into.max_bytes = size
        self.fit_pool(pool, 0)

    def fit_pool(self, pool: int, more: int) -> bool:
        """Its own oldest go until so many bytes more lie within its limit.  False: they never
        would."""
        into = self.find(pool)
        if more > into.max_bytes:
            return False
        while into.size + more > into.max_bytes:
            self.evict_by_itself(pool, 1)
        return True

    def evict_by_itself(self, pool: int, pages: int) -> None:
        self.evict(pages, pool)
        self.find(pool).evicted_by_itself += pages

    def must_reject(self, pool: int, object: int, index: int) -> bool:
        """An index over 32 bits; a new page in a frozen or full pool."""
        into = self.find(pool)
        if index >> 32:
            return True
        is_full = into.frozen or len(into.pages) >= into.max_pages
        return is_full and (object, index) not in into.pages

    def stored(self, pool: int, object: int, index: int, page: Buffer) -> None:
        """The put was taken: the page is the page now, and the newest one."""
        into = self.find(pool)
        self.count["puts"] += 1
        self.count["good_puts"] += 1
        self.count["dup_puts_replaced"] += (object, index) in into.pages
        into.pages[object, index] = bytes(page)
        self.clock += 1
        into.ages[object, index] = self.clock
        into.got.discard((object, index))

    def evict(self, pages: int, of: int | None = None) -> None:
        """So many ephemeral pages went, of all pools or of one: those that were put first, and not
        got since."""
        there = [
            (pool.ages[handle], pool, handle)
            for number, pool in self.pools.items()
            if pool.is_ephemeral and of in (None, number)
            for handle in pool.pages
        ]
        queue = deque(sorted(there, key=lambda page: page[0]))
        spared = 0
        while pages and queue:
            _, pool, handle = queue.popleft()
            if handle in pool.got and spared < SECOND_CHANCES:
                spared += 1
                self.clock += 1
                pool.got.discard(handle)
                pool.ages[handle] = self.clock
                queue.append((self.clock, pool, handle))
            else:
                spared = 0
                pages -= 1
                del pool.pages[handle]
                pool.evicted += 1
                self.count["evicted_pages"] += 1

    def ephemeral_pages(self) -> int:
        return sum(len(pool.pages) for pool in self.pools.values() if pool.is_ephemeral)

    def excess(self, more: int) -> int:
        """How many pages too many there would be, with so many more."""
        return sum(len(pool.pages) for pool in self.pools.values()) + more - self.limit // PAGE

    def makes_room(self, pool: int, object: int, index: int) -> bool:
        """A put finds room, or makes it; not above a lowered limit, see maintain()."""
        if self.limit == 0 or self.excess(0) > 0:
            return False
        excess = self.excess((object, index) not in self.find(pool).pages)
        self.evict(max(0, excess))
        return self.excess((object, index) not in self.find(pool).pages) <= 0

    def rejected(self, pool: int, object: int, index: int, keep_old: bool) -> None:
        """The put was not taken: a page put before is flushed, unless it is to be kept."""
        if index >> 32:
            return
        pages = self.find(pool).pages
        self.count["puts"] += 1
        self.count["no_mem_puts"] += 1
        if not keep_old and pages.pop((object, index), None) is not None:
            self.count["dup_puts_flushed"] += 1

    def put_page(
        self,
        pool: int,
        object: int,
        index: int,
        page: Buffer,
        *,
        compress: str = "lz4",
        keep_old: bool = False,
    ) -> bool:
        check(page, compress)
        if (
            self.must_reject(pool, object, index)
            or (self.find(pool).is_ephemeral and not self.fit_pool(pool, HEADER + PAGE))
            or not self.makes_room(pool, object, index)
        ):
            self.rejected(pool, object, index, keep_old)
            return False
        self.stored(pool, object, index, page)
        return True

    def get_page(self, pool: int, object: int, index: int, into: Buffer) -> bool:
        page = self.find(pool).pages.get((object, index))
        if not index >> 32:
            self.count["gets"] += 1
            self.count["found_gets"] += page is not None
        if page is not None:
            memoryview(into)[:] = page
            self.find(pool).got.add((object, index))
            if self.find(pool).gets_remove:
                del self.find(pool).pages[object, index]
        return page is not None

    def flush_page(self, pool: int, object: int, index: int) -> bool:
        found = self.find(pool).pages.pop((object, index), None) is not None
        if not index >> 32:
            self.count["flushes"] += 1
            self.count["flushes_found"] += found
        return found

    def flush_object(self, pool: int, object: int) -> int:
        pages = self.find(pool).pages
        gone = [handle for handle in pages if handle[0] == object]
        for handle in gone:
            del pages[handle]
        self.count["flushes"] += len(gone)
        self.count["flushes_found"] += len(gone)
        return len(gone)

    def evict_all(self) -> int:
        there = self.ephemeral_pages()
        self.evict(there)
        return there

    def maintain(self, all: bool = False) -> None:
        """Changes nothing that anyone can see, but for a limit that was lowered."""
        self.evict(max(0, self.excess(0)))

    def recompress_page(self, pool: int, object: int, index: int, compress: str) -> bool:
        """Changes only how a page is kept; whether it does, the contract does not say."""
        self.find(pool)
        return False

    def pack(self) -> bool:
        """Changes only where pages are kept."""
        return False

    def set_staging(self, on: bool) -> None:
        """Changes only how a page is kept."""

    def settle(self, milliseconds: int = 0) -> None:
        """Changes only how pages are kept."""

    def recover(self) -> None:
        """A new process: persistent pools and pages stay, and whoever shares one joins anew;
        ephemeral pools, freezing, limits of pools and counters do not."""
        self.pools = {n: pool for n, pool in self.pools.items() if not pool.is_ephemeral}
        for pool in self.pools.values():
            pool.users = 0
            pool.frozen = False
            pool.max_pages = 2**64 - 1
        self.count = dict.fromkeys(COUNTERS, 0)

    def pool_stats(self, pool: int) -> dict[str, int]:
        found = self.find(pool)
        return {
            "pages": len(found.pages),
            "bytes": found.size,
            "evicted": found.evicted,
            "evicted_by_itself": found.evicted_by_itself,
        }

    def stats(self) -> dict[str, int]:
        stored = [page for pool in self.pools.values() for page in pool.pages.values()]
        same = sum(page == page[:8] * (PAGE // 8) for page in stored)
        return {
            **self.count,
            "stored_pages": len(stored),
            "same_filled_pages": same,
            "ephemeral_pages": self.ephemeral_pages(),
            "orig_data_size": PAGE * len(stored),
        }


def check(page: Buffer, compress: str) -> None:
    if compress not in ("lz4", "zstd", "none"):
        raise ValueError(f"compress must be one of lz4, zstd, none, not {compress!r}")
    if memoryview(page).nbytes != PAGE:
        raise ValueError("a page is 4096 bytes")
