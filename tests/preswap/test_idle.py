# SPDX-License-Identifier: BSD-3-Clause
"""What nobody has used for long goes to disk: how much at a time, and when it must not."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from preswapd.preswap.device._device import FLAG_FUA, Device, Epochs, step_seconds
from preswapd.preswap.policy import AUTO
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback import idle as idle_module
from preswapd.preswap.writeback.idle import BUSY, MINUTES_BEFORE, Habits, Idle
from preswapd.preswap.writeback.moves import RETRY_SECONDS
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, read

SIZE = 8 * MIB - 8 * PAGE
PAGES = range(1, 601)  # of three extents


class Clock:
    """Stands still unless it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(idle_module, "time", clock)
    return clock


@pytest.fixture
def filled(running: Running, clock: Clock) -> Running:
    """600 pages of g1 in tmem, all older than the age that is set; no limit to the rate."""
    running.paths.runtime_dir.mkdir()
    instance = running.open(DeviceSpec("g1", SIZE), DeviceSpec("g2", SIZE))
    connection = running.connect()
    for page in PAGES:
        connection.pwrite(page_of(page), page * PAGE)
    instance.sysctl.policy.writeback_idle = 0.0
    instance.sysctl.policy.writeback_rate = None
    return running


def turn(running: Running, clock: Clock, seconds: float = 1.0, times: int = 1) -> None:
    for _ in range(times):
        clock.now += seconds
        running.instance.idle.turn()


def counters(running: Running, name: str = "g1") -> Mapping[str, int]:
    return cast(Mapping[str, int], running.instance.devices[name].stats())


def moved(running: Running) -> int:
    found = counters(running)
    assert found["written_back_idle"] == found["written_back_pages"]
    return found["written_back_idle"]


def check(running: Running) -> None:
    connection = running.connect()
    for page in PAGES:
        assert read(connection, page * PAGE, PAGE) == page_of(page), f"page {page}"


def test_what_is_idle_goes(filled: Running, clock: Clock) -> None:
    turn(filled, clock, times=4)
    assert moved(filled) == len(PAGES)
    assert filled.device.preswap_pages == 0
    check_coherence(filled.instance)
    check(filled)
    filled.kill()
    filled.open()
    check(filled)


def test_by_default_nothing_goes(filled: Running, clock: Clock) -> None:
    filled.instance.sysctl.policy.writeback_idle = type(
        filled.instance.sysctl.policy
    )().writeback_idle
    turn(filled, clock, 3600, times=5)
    assert moved(filled) == 0


def test_what_is_younger_stays(filled: Running, clock: Clock) -> None:
    filled.instance.sysctl.policy.writeback_idle = 3600.0
    turn(filled, clock, 7200, times=5)
    assert moved(filled) == 0


def test_an_age_that_is_set_counts_at_once(filled: Running, clock: Clock) -> None:
    """A look for pages of 30 days that finds none is followed by the next one in three days."""
    filled.instance.sysctl.policy.writeback_idle = 30 * 86400.0
    turn(filled, clock, times=2)
    filled.instance.sysctl.policy.writeback_idle = 0.0
    turn(filled, clock, times=4)
    assert moved(filled) == len(PAGES)


def test_what_was_used_since_stays(filled: Running, clock: Clock) -> None:
    """A read, a write, a write of a part; where this machine is slow, all at a greater age."""
    age = 0.25
    while True:
        age *= 2
        connection = filled.connect()
        for page in PAGES:
            connection.pwrite(page_of(page), page * PAGE)
        time.sleep(age)
        filled.instance.epochs.begin()
        since = time.monotonic()
        read(connection, 10 * PAGE, PAGE)
        connection.pwrite(page_of(20), 20 * PAGE)
        connection.pwrite(b"part", 30 * PAGE)
        end, gone, number = filled.device.writeback_next_idle(0, age)
        assert (end, number) == (256, 0)
        if time.monotonic() - since < age:
            break
    assert gone == 252
    assert [page for page in range(1, 256) if not filled.device.is_on_disk(page)] == [10, 20, 30]


def test_at_most_so_many_bytes_a_second(filled: Running, clock: Clock) -> None:
    filled.instance.sysctl.policy.writeback_rate = 10 * PAGE
    for second in range(1, 31):
        for _ in range(4):
            turn(filled, clock, 0.25)
        assert moved(filled) <= 10 * second
    assert moved(filled) >= 290


def test_what_was_not_used_of_the_rate_is_not_kept(filled: Running, clock: Clock) -> None:
    """After an hour with nothing to move."""
    filled.instance.sysctl.policy.writeback_idle = None
    filled.instance.sysctl.policy.writeback_rate = 300 * PAGE
    turn(filled, clock, 3600)
    filled.instance.sysctl.policy.writeback_idle = 0.0
    for _ in range(10):
        turn(filled, clock, 0.0)
    assert moved(filled) <= 300


def test_a_rate_may_be_set_while_it_runs(filled: Running, clock: Clock) -> None:
    filled.instance.sysctl.policy.writeback_rate = 4096
    turn(filled, clock, 5.0)
    before = moved(filled)
    assert before < 10
    filled.instance.sysctl.policy.writeback_rate = None
    turn(filled, clock, 0.1, times=5)
    assert moved(filled) > before + 200


def test_nobody_waits_while_the_rate_allows_more(
    filled: Running, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 MiB a second are 32 turns, and each of them would wait for room a quarter of a second."""
    waits: list[int | None] = []
    monkeypatch.setattr(filled.instance.room, "turn", waits.append)
    filled.instance.sysctl.policy.writeback_rate = 300 * PAGE
    for _ in range(2):
        clock.now += 1.0
        filled.instance.write_back()
        filled.instance.write_back()
    assert moved(filled) == len(PAGES)
    assert waits == [0, None, 0, None]


def test_without_a_rate_nobody_waits(
    filled: Running, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after whole extents either."""
    waits: list[int | None] = []
    monkeypatch.setattr(filled.instance.room, "turn", waits.append)
    while None not in waits:
        filled.instance.write_back()
    assert moved(filled) == len(PAGES)
    assert waits == [0, 0, 0, None]


# --- when not ---


def test_not_while_guests_keep_the_disk_busy(filled: Running, clock: Clock) -> None:
    """Their reads from disk, and their writes that tmem rejected."""
    connection = filled.connect()
    for page in range(700, 900):
        connection.pwrite(page_of(page), page * PAGE, FLAG_FUA)
    turn(filled, clock)
    before = moved(filled)
    for _ in range(3):
        for page in range(700, 700 + BUSY + 1):
            read(connection, page * PAGE, PAGE)
        turn(filled, clock)
        assert moved(filled) == before
    filled.device.max_pages = 0
    for page in range(1000, 1000 + BUSY + 1):
        connection.pwrite(page_of(page), page * PAGE)
    turn(filled, clock)
    assert moved(filled) == before
    for page in range(700, 700 + BUSY - 1):
        read(connection, page * PAGE, PAGE)
    turn(filled, clock)
    assert moved(filled) > before, "so few are no trouble"


def test_not_while_frozen(filled: Running, clock: Clock) -> None:
    filled.instance.set("preswap.test.frozen", "1")
    turn(filled, clock, times=5)
    assert moved(filled) == 0
    filled.instance.set("preswap.test.frozen", "0")
    turn(filled, clock, times=5)
    assert moved(filled) == len(PAGES)


def test_not_while_a_shrink_runs(
    filled: Running, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filled.instance.shrinks, "under_way", object)
    turn(filled, clock, times=5)
    assert moved(filled) == 0


def test_a_disk_that_fails_is_tried_again_later(filled: Running, clock: Clock) -> None:
    os.truncate(filled.paths.disk_file("g1"), PAGE)
    turn(filled, clock, RETRY_SECONDS / 100, times=50)
    assert counters(filled)["disk_errors"] == 1
    assert moved(filled) == 0
    check(filled)
    os.truncate(filled.paths.disk_file("g1"), filled.device.size)
    turn(filled, clock, RETRY_SECONDS, times=5)
    assert moved(filled) == len(PAGES)
    check(filled)


def test_a_disk_that_fails_leaves_the_other_devices_to_go(filled: Running, clock: Clock) -> None:
    other = filled.instance.devices["g2"].connect()
    for page in range(1, 101):
        other.pwrite(page_of(page + 1), page * PAGE)
    os.truncate(filled.paths.disk_file("g1"), PAGE)
    turn(filled, clock, RETRY_SECONDS + 1, times=2)
    assert counters(filled, "g2")["written_back_idle"] == 100
    for page in range(1, 101):
        assert read(other, page * PAGE, PAGE) == page_of(page + 1)


def test_a_device_that_is_removed_in_the_middle(filled: Running, clock: Clock) -> None:
    other = filled.instance.devices["g2"].connect()
    other.pwrite(page_of(7), PAGE)
    turn(filled, clock)
    assert moved(filled) > 0
    filled.instance.remove("g1", force=True)
    turn(filled, clock, times=3)
    assert counters(filled, "g2")["written_back_idle"] == 1
    assert read(other, PAGE, PAGE) == page_of(7)


def test_a_large_device_is_looked_at_in_pieces(running: Running, clock: Clock) -> None:
    """Requests of a new client, and a clean stop, wait for each; room has its turn in between."""
    pages, idle = (4 << 30) // PAGE + 1000, (4 << 30) // PAGE + 7
    running.paths.runtime_dir.mkdir()
    running.open(DeviceSpec("g1", pages * PAGE))
    connection, device = running.connect(), running.device
    connection.pwrite(page_of(1), idle * PAGE)
    page, moved, _ = device.writeback_next_idle(0, 0.0)
    assert (0 < page < idle, moved) == (True, 0)
    assert device.writeback_next_idle(page, 0.0)[1] == 1
    connection.pwrite(page_of(2), idle * PAGE)
    assert sum(device.weigh(running.instance.epochs.begin())) == 1
    page, moved, _ = device.writeback_next_heavy(0, 1, 1)
    assert (0 < page < idle, moved) == (True, 0)
    page, moved, _ = device.writeback_next_heavy(page, 1, 1)
    assert moved == 1
    assert device.writeback_next_heavy(page, 1, 1)[0] >= pages
    assert sum(device.idle_pages()) == 1
    assert read(connection, idle * PAGE, PAGE) == page_of(2)


def test_a_look_leaves_a_clean_device_clean(filled: Running, clock: Clock) -> None:
    """Else a power cut would lose all that a sync has saved, however long ago."""
    assert filled.instance.begin_sync().wait().complete
    turn(filled, clock, times=5)
    assert not filled.device.is_marked
    filled.reboot()
    filled.open(known=False)
    turn(filled, clock, times=5)
    assert not filled.device.is_marked
    check(filled)


def test_a_clean_device_is_marked_before_a_page_goes(filled: Running, clock: Clock) -> None:
    filled.stop()
    instance = filled.open()
    instance.sysctl.policy.writeback_idle = 0.0
    turn(filled, clock, times=2)
    assert moved(filled) > 0
    assert not filled.sidecar().clean
    check(filled)


# --- how long is long: auto ---


class Guests:
    """Of Epochs and Device what Habits asks for."""

    def __init__(self) -> None:
        self.reads = [0] * 80
        self.idle = [0] * 80

    def reused(self) -> list[int]:
        return list(self.reads)

    def idle_pages(self) -> list[int]:
        return list(self.idle)


def step_of(seconds: float) -> int:
    return max(step for step in range(80) if step_seconds(step) <= seconds)


def habits(guests: Guests, devices: Sequence[object] = ()) -> Habits:
    found = [guests, *devices]
    return Habits(cast(Epochs, guests), lambda: cast(Sequence[Device], found))


def minutes(guests: Guests, found: Habits, many: int, reads: Mapping[float, int]) -> None:
    for _ in range(many):
        for seconds, pages in reads.items():
            guests.reads[step_of(seconds)] += pages
        found.note_minute()


def test_auto_knows_nothing_for_ten_minutes() -> None:
    guests = Guests()
    guests.idle[step_of(900)] = 10**6
    found = habits(guests)
    minutes(guests, found, MINUTES_BEFORE - 1, {})
    assert found.age is None
    minutes(guests, found, 1, {})
    assert found.age is not None
    assert found.age >= 60


def test_auto_is_the_shortest_age_that_few_come_back_from() -> None:
    """100,000 pages idle for longer than an hour: 200 of them a minute are few, 400 are not."""
    guests = Guests()
    guests.idle[step_of(3600)] = 100_000
    guests.idle[step_of(10)] = 10**6  # nobody asks about those
    found = habits(guests)
    minutes(guests, found, 60, {100: 5000, 400: 1000, 1000: 150})
    assert found.age is not None
    assert 400 < found.age <= 600
    minutes(guests, found, 60, {100: 5000, 400: 1000, 1000: 400})
    assert found.age is not None
    assert found.age > 1000


def test_auto_moves_nothing_where_all_come_back() -> None:
    guests = Guests()
    guests.idle[step_of(300)] = 1000
    found = habits(guests)
    minutes(guests, found, 30, {3000: 100})
    assert found.age is None


def test_auto_forgets_what_was_long_ago() -> None:
    guests = Guests()
    guests.idle[step_of(900)] = 10_000
    found = habits(guests)
    minutes(guests, found, 20, {500: 10_000})
    first = found.age
    minutes(guests, found, 100, {})
    assert first is None or first > 500
    assert found.age is not None
    assert found.age < 120


def test_auto_passes_over_a_device_that_is_removed() -> None:
    class Removed:
        def idle_pages(self) -> list[int]:
            raise OSError

    guests = Guests()
    guests.idle[step_of(900)] = 10_000
    found = habits(guests, [Removed()])
    minutes(guests, found, 20, {})
    assert found.age is not None


def test_auto_is_followed(filled: Running, clock: Clock) -> None:
    filled.instance.sysctl.policy.writeback_idle = AUTO
    idle: Idle = filled.instance.idle
    turn(filled, clock, times=3)
    assert moved(filled) == 0
    idle.habits.found = 0.0
    turn(filled, clock, times=4)
    assert moved(filled) == len(PAGES)


def test_low_rate_does_not_scatter_its_writes(filled: Running, clock: Clock) -> None:
    """What is left of an extent goes before another is begun."""
    filled.instance.sysctl.policy.writeback_rate = 8 * PAGE
    turn(filled, clock, 1.0, times=4)
    gone = [page for page in PAGES if filled.device.is_on_disk(page)]
    assert 8 <= len(gone) <= 64
    assert gone == list(range(gone[0], gone[0] + len(gone)))
