# SPDX-License-Identifier: BSD-3-Clause
"""Of a device's connections, the newest one that has changed something is the one that may."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from preswapd.preswap.device._device import Connection
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.running import Running, read

Change = Callable[[Connection], None]

# Of pages 1 to 3; some are tried with the interpreter lock first, some are not.
CHANGES: dict[str, Change] = {
    "page": lambda client: client.pwrite(page_of(7), PAGE),
    "pages": lambda client: client.pwrite(page_of(7) * 3, PAGE),
    "part": lambda client: client.pwrite(b"x" * 100, 2 * PAGE - 50),
    "trim": lambda client: client.trim(3 * PAGE, PAGE),
    "zero": lambda client: client.zero(3 * PAGE, PAGE),
}
BOTH = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as made:
        made.open()
        yield made


def pages(running: Running) -> bytes:
    return read(running.connect(), PAGE, 3 * PAGE)


@BOTH
def test_older_one_changes_nothing_more(running: Running, change: Change) -> None:
    """Its client sent this before it lost the connection, and again over the new one."""
    old = running.connect()
    change(old)
    fresh = running.connect()
    change(fresh)
    fresh.pwrite(page_of(1) * 3, PAGE)
    for _ in range(2):
        with pytest.raises(ConnectionAbortedError):
            change(old)
    assert pages(running) == page_of(1) * 3
    change(fresh)


@BOTH
def test_any_change_takes_its_place(running: Running, change: Change) -> None:
    old, fresh = running.connect(), running.connect()
    old.pwrite(page_of(1) * 3, PAGE)
    change(fresh)
    before = pages(running)
    with pytest.raises(ConnectionAbortedError):
        old.pwrite(page_of(2), 9 * PAGE)
    assert pages(running) == before


def test_what_changes_nothing_leaves_it_its_place(running: Running) -> None:
    old, fresh = running.connect(), running.connect()
    old.pwrite(page_of(1), PAGE)
    assert read(fresh, PAGE, PAGE) == page_of(1)
    fresh.extents(PAGE, 0)
    fresh.flush()
    with pytest.raises(OSError, match="Invalid"):
        fresh.pwrite(page_of(1), fresh.size)
    old.pwrite(page_of(2), PAGE)
    assert read(fresh, PAGE, PAGE) == page_of(2)


def test_older_one_may_look_on(running: Running) -> None:
    """A request that changes nothing harms nobody, however late it comes."""
    old, fresh = running.connect(), running.connect()
    fresh.pwrite(page_of(1), PAGE)
    assert read(old, PAGE, PAGE) == page_of(1)
    old.extents(PAGE, 0)
    old.flush()


def test_order_is_that_in_which_they_came(running: Running) -> None:
    """Not that in which they changed something first."""
    first, second, third = (running.connect() for _ in range(3))
    third.pwrite(page_of(3), PAGE)
    for older in (first, second):
        with pytest.raises(ConnectionAbortedError):
            older.pwrite(page_of(1), PAGE)
    third.pwrite(page_of(4), PAGE)
    assert read(first, PAGE, PAGE) == page_of(4)


def test_each_may_until_a_newer_one_does(running: Running) -> None:
    one = running.connect()
    for number in range(1, 5):
        one.pwrite(page_of(number), PAGE)
        newer = running.connect()
        one.pwrite(page_of(number), PAGE)
        newer.pwrite(page_of(number), PAGE)
        with pytest.raises(ConnectionAbortedError):
            one.trim(PAGE, PAGE)
        one = newer


def test_newer_one_that_has_gone_still_counts(running: Running) -> None:
    """Its client is a third one by now, or has ended: what it wrote is newer all the same."""
    old, fresh = running.connect(), running.connect()
    fresh.pwrite(page_of(2), PAGE)
    fresh.close()
    with pytest.raises(ConnectionAbortedError):
        old.pwrite(page_of(1), PAGE)
    running.connect().pwrite(page_of(3), PAGE)
