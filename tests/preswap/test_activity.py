# SPDX-License-Identifier: BSD-3-Clause
"""Where nothing happens nobody wakes up, and whatever happens wakes those who look after it."""

import threading
from collections.abc import Callable

import pytest

from preswapd.preswap.activity import AFTERWARDS_SECONDS, Activity
from preswapd.preswap.device._device import Connection
from preswapd.preswap.instance import Instance
from preswapd.preswap.writeback.room import REST_MILLISECONDS
from preswapd.units import PAGE_SIZE
from tests.preswap.running import MIB, Running, read
from tests.running import PATIENCE

PAGE = b"page" * 1024
LAST = 255  # no page of the zone


@pytest.fixture
def connection(running: Running) -> Connection:
    running.open()
    return running.connect()


def rest(activity: Activity) -> None:
    """As if nothing had happened for a while."""
    activity.look()
    activity.begun.clear()
    activity.last -= 2 * AFTERWARDS_SECONDS
    assert activity.is_over


REQUESTS: dict[str, Callable[[Connection], object]] = {
    "read": lambda c: read(c, 0, PAGE_SIZE),
    "write": lambda c: c.pwrite(PAGE, LAST * PAGE_SIZE),
    "trim": lambda c: c.trim(PAGE_SIZE, LAST * PAGE_SIZE),
    "zero": lambda c: c.zero(PAGE_SIZE, LAST * PAGE_SIZE),
    "flush": lambda c: c.flush(),
}


@pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)
def test_request_is_seen(
    running: Running, connection: Connection, request_of: Callable[[Connection], object]
) -> None:
    activity = running.instance.activity
    rest(activity)
    request_of(connection)
    activity.look()
    assert not activity.is_over
    assert activity.begun.is_set()


def test_upkeep_is_nothing_that_happens(running: Running) -> None:
    instance = running.open()
    instance.maintain()  # what the start has left
    rest(instance.activity)
    instance.maintain()
    instance.room.turn(0)
    instance.idle.turn()
    instance.activity.look()
    assert instance.activity.is_over


def test_setting_ends_the_rest(running: Running) -> None:
    instance = running.open()
    rest(instance.activity)
    instance.set("preswap.test.pool_limit", "6M")
    assert not instance.activity.is_over
    assert instance.activity.begun.is_set()


def test_setting_that_is_not_kept_is_tried_again(running: Running) -> None:
    instance = running.open()
    instance.sysctl.not_kept = "no room"
    instance.sysctl.keep = lambda: None  # type: ignore[method-assign]
    rest(instance.activity)
    instance.maintain()
    assert not instance.activity.is_over


def test_what_the_start_has_left_is_done_without_a_rest(
    running: Running, connection: Connection
) -> None:
    """Of one device at a turn, and there may be hundreds."""
    instance = running.instance
    instance.create("g2", MIB)
    instance.create("g3", MIB)
    device = instance.devices["g2"]
    other = device.connect()
    other.pwrite(PAGE, LAST * PAGE_SIZE)
    other.close()
    maintenance = instance.maintenance
    maintenance.to_compress = list(instance.devices.values())
    maintenance.to_punch = list(instance.devices.values())
    for left in (2, 1, 0):
        rest(instance.activity)
        instance.maintain()
        assert len(maintenance.to_compress) == left
        assert instance.activity.is_over == (left == 0)
    # A clean one waits for its guest.
    assert not any(one.is_marked for one in maintenance.to_punch)


def ended(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_upkeep_sleeps_until_something_happens(running: Running, connection: Connection) -> None:
    activity = running.instance.activity
    rest(activity)
    activity.resumed.clear()
    sleeping = [ended(activity.pause), ended(lambda: activity.sleep(1.0))]
    connection.flush()
    activity.look()
    for thread in sleeping:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_wait_for_room_ends_when_something_happens(running: Running) -> None:
    instance: Instance = running.open()
    rest(instance.activity)
    assert instance.room.patience() == REST_MILLISECONDS > 1000 * PATIENCE
    waiting = ended(instance.room.turn)
    instance.activity.note()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def test_pages_grow_old_while_nothing_happens(running: Running) -> None:
    instance = running.open()
    instance.set("preswap.test.writeback_idle", "60s")
    rest(instance.activity)
    assert instance.room.patience() <= 1000
