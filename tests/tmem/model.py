"""The contract of transcendent memory in plain Python: what the native store must do.

A put may be rejected at any time, so a model cannot foretell every answer of the store.  It says
which puts must be rejected (`must_reject`), and what is true after either answer (`stored`,
`rejected`); on its own it rejects only what it must, and everything while its limit is 0.
"""

from typing import Protocol

from typing_extensions import Buffer

from preswapd.tmem._tmem import PERSISTENT

PAGE = 4096
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
)


class Store(Protocol):
    """What the model and the native store have in common."""

    limit: int

    def new_pool(self, uuid: bytes = ..., flags: int = ...) -> int: ...
    def destroy_pool(self, pool: int) -> int: ...
    def freeze(self, pool: int, frozen: bool) -> None: ...
    def set_max_pages(self, pool: int, pages: int) -> None: ...
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
    def maintain(self, all: bool = ...) -> None: ...
    def stats(self) -> dict[str, int]: ...


class Pool:
    def __init__(self) -> None:
        self.pages: dict[tuple[int, int], bytes] = {}
        self.frozen = False
        self.max_pages = 2**64 - 1


class Model:
    """Pools of pages in dictionaries; every answer follows from the contract."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.pools: dict[int, Pool] = {}
        self.count = dict.fromkeys(COUNTERS, 0)

    def new_pool(self, uuid: bytes = bytes(16), flags: int = PERSISTENT) -> int:
        pool = next(i for i in range(len(self.pools) + 1) if i not in self.pools)
        self.pools[pool] = Pool()
        return pool

    def destroy_pool(self, pool: int) -> int:
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

    def must_reject(self, pool: int, object: int, index: int) -> bool:
        """An index over 32 bits; a new page in a frozen or full pool."""
        into = self.find(pool)
        if index >> 32:
            return True
        is_full = into.frozen or len(into.pages) >= into.max_pages
        return is_full and (object, index) not in into.pages

    def stored(self, pool: int, object: int, index: int, page: Buffer) -> None:
        """The put was taken: the page is the page now."""
        pages = self.find(pool).pages
        self.count["puts"] += 1
        self.count["good_puts"] += 1
        self.count["dup_puts_replaced"] += (object, index) in pages
        pages[object, index] = bytes(page)

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
        if self.limit == 0 or self.must_reject(pool, object, index):
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

    def maintain(self, all: bool = False) -> None:
        """Changes nothing that anyone can see."""

    def recover(self) -> None:
        """A new process: pages and pools stay; freezing, quotas and counters do not."""
        for pool in self.pools.values():
            pool.frozen = False
            pool.max_pages = 2**64 - 1
        self.count = dict.fromkeys(COUNTERS, 0)

    def stats(self) -> dict[str, int]:
        stored = [page for pool in self.pools.values() for page in pool.pages.values()]
        same = sum(page == page[:8] * (PAGE // 8) for page in stored)
        return {
            **self.count,
            "stored_pages": len(stored),
            "same_filled_pages": same,
            "orig_data_size": PAGE * len(stored),
        }


def check(page: Buffer, compress: str) -> None:
    if compress not in ("lz4", "zstd", "none"):
        raise ValueError(f"compress must be one of lz4, zstd, none, not {compress!r}")
    if memoryview(page).nbytes != PAGE:
        raise ValueError("a page is 4096 bytes")
