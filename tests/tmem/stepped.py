# SPDX-License-Identifier: BSD-3-Clause
"""Operations as lists that JSON can carry, done on the native store and on the model; and the
program that tests/stepping.py steps through, which does them on an arena."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from preswapd.tmem._tmem import Host
from tests.stepping import Operation, Run, serve
from tests.tmem import arena_file
from tests.tmem.model import Model
from tests.tmem.pages import make_page

LIMIT = 8 << 20
POOL = 0


def run_operation(store: Host | Model, operation: Operation) -> Any:
    name, *rest = operation
    if name == "put":
        obj, index, kind, tag = rest
        return store.put_page(POOL, obj, index, make_page(kind, tag))
    if name == "put_in":
        pool, index, kind, tag = rest
        return store.put_page(pool, 0, index, make_page(kind, tag))
    if name == "fill":
        return fill(store, *rest)
    if name == "get":
        pool, obj, index = rest
        return store.get_page(pool, obj, index, bytearray(4096))
    if name == "new_pool" and rest:
        uuid, flags = rest
        return store.new_pool(bytes.fromhex(uuid), flags)
    if name == "put_keep_old":
        obj, index, kind, tag = rest
        return store.put_page(POOL, obj, index, make_page(kind, tag), keep_old=True)
    if name == "forge":
        return forge(store, *rest)
    if name == "limit":
        store.limit = rest[0]
        return None
    if name == "maintain":
        return store.maintain(all=True)
    if name == "pack":
        while store.pack():
            pass
        return None
    if name == "stage":
        return store.set_staging(True)
    return getattr(store, name)(*rest)


def fill(store: Host | Model, pool: int, count: int) -> None:
    """Raw pages; all are stored, for as long as that may be."""
    for index in range(count):
        assert store.put_page(pool, 0, index, make_page("noise", index))


def forge(store: Host | Model, obj: int, index: int, count: int) -> None:
    """Stores raw pages full of copies of the live header of page 0 of object 0."""
    page = bytes(4096)
    if isinstance(store, Host):
        (slot,) = (s for s in arena_file.slots_of(Path(store.path)) if s.handle == (POOL, 0, 0))
        data = arena_file.read_front(Path(store.path))
        page = data[slot.header_at : slot.header_at + 32] * 128
    for i in range(index, index + count):
        store.put_page(POOL, obj, i, page, compress="none")


@contextmanager
def opened(arena: Path) -> Iterator[Run]:
    """The arena that lies there, not yet recovered, or a new one."""
    host = Host(arena, LIMIT, create=not arena.exists())
    yield partial(run_operation, host)
    host.close()


if __name__ == "__main__":
    serve(opened)
