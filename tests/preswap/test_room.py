# SPDX-License-Identifier: BSD-3-Clause
"""The cold goes to disk before anything is rejected: which pages, when, and when not."""

import os
import random
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import cast

import pytest

from preswapd import tmem
from preswapd.preswap.device._device import EXTENT_PAGES
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback import room as room_module
from preswapd.preswap.writeback.room import Within
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.preswap.writeback.victims import Victims, beside
from preswapd.tmem import SHARED
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, read
from tests.preswap.test_shrink import damage_one_payload

# As large as a device whose zone is the swap header alone can be.
SIZE = 8 * MIB - 8 * PAGE
LIMIT = 4 * MIB

NOISE = random.Random(5).randbytes(2048 * PAGE)
QUOTA = "preswap.test.g1.quota"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def opened(running: Running) -> Running:
    """Two devices, a pool of 4 MiB, room for 25 %."""
    running.paths.runtime_dir.mkdir()
    running.open(DeviceSpec("g1", SIZE), DeviceSpec("g2", SIZE))
    running.instance.host.limit = LIMIT
    running.instance.sysctl.policy.writeback_room = 0.25
    return running


@pytest.fixture
def full(opened: Running) -> Running:
    """900 pages of g1 in a pool for less than 1024."""
    put(opened, range(1, 901))
    return opened


def noise(page: int) -> bytes:
    return NOISE[page * PAGE : (page + 1) * PAGE]


def put(running: Running, pages: Sequence[int], name: str = "g1") -> None:
    connection = running.instance.devices[name].connect()
    for page in pages:
        connection.pwrite(noise(page), page * PAGE)


def check(running: Running, pages: Sequence[int], name: str = "g1") -> None:
    connection = running.instance.devices[name].connect()
    for page in pages:
        assert read(connection, page * PAGE, PAGE) == noise(page), f"page {page} of {name}"


def counters(running: Running, name: str = "g1") -> Mapping[str, int]:
    return cast(Mapping[str, int], running.instance.devices[name].stats())


def turns(running: Running, most: int = 50) -> None:
    for _ in range(most):
        running.instance.room.turn(0)


def is_lacking(running: Running) -> bool:
    return running.instance.host.lacking() > 0


# --- the pool ---


def test_room_is_made_and_nothing_is_lost(full: Running) -> None:
    assert counters(full)["failed_stores"] == 0
    turns(full)
    assert not is_lacking(full)
    found = counters(full)
    assert found["written_back_room"] == found["written_back_pages"] == found["disk_pages"] - 1
    assert 100 < found["written_back_room"] < 450, "no more goes than has to"
    check_coherence(full.instance)
    check(full, range(1, 901))
    full.kill()
    full.open()
    check(full, range(1, 901))


def test_a_guest_that_is_slower_than_the_disk_is_not_rejected(opened: Running) -> None:
    """Three times what the pool holds."""
    pages = list(range(1, 2000))
    for first in range(0, len(pages), 20):
        put(opened, pages[first : first + 20])
        turns(opened, 2)
    assert counters(opened)["failed_stores"] == 0
    put(opened, pages[:1000], "g2")
    check(opened, pages)
    check(opened, pages[:1000], "g2")


def test_the_hot_set_that_comes_late_is_in_memory(full: Running) -> None:
    """Cold pages filled the pool; what is read and rewritten since is read from memory."""
    put(full, range(901, 2001))
    turns(full)
    hot = range(1, 150)
    for _ in range(20):
        put(full, hot)
        check(full, hot)
        turns(full, 5)
    before = counters(full)["disk_reads"]
    check(full, hot)
    assert counters(full)["disk_reads"] == before
    check(full, range(1, 2001))


def test_room_that_is_there_is_left_alone(opened: Running) -> None:
    put(opened, range(1, 300))
    turns(opened)
    assert counters(opened)["written_back_pages"] == 0
    assert opened.device.promoted_below is None, "and every page that is read comes back"


def test_room_off_moves_nothing_and_brings_nothing_back(full: Running) -> None:
    full.instance.sysctl.policy.writeback_room = 0.0
    put(full, range(901, 1500))
    turns(full)
    found = counters(full)
    assert found["written_back_pages"] == 0
    assert found["failed_stores"] > 0
    assert full.device.promoted_below == 0
    check(full, range(1, 1500))
    assert counters(full)["promoted_pages"] == 0


def test_room_off_rests_above_a_lowered_limit(
    full: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is to be done there, and the thread must not do it all the time."""
    full.instance.sysctl.policy.writeback_room = 0.0
    full.instance.host.limit = MIB
    naps: list[float] = []
    monkeypatch.setattr("preswapd.preswap.writeback.room.time.sleep", naps.append)
    full.instance.room.turn(1000)
    full.instance.room.turn(1000)
    assert len(naps) == 2
    assert counters(full)["written_back_pages"] == 0


def test_a_turn_works_for_so_long(full: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "WORK_SECONDS", 0.0)
    room, devices = full.instance.room, full.instance.all_devices()
    assert 0 < room.move(room.pool, devices, 900, 0.0) <= EXTENT_PAGES
    assert room.move(room.pool, devices, 900, 0.0) > 0, "it goes on there"


def test_pages_come_back_where_room_was_off(opened: Running) -> None:
    """Room that is there, and less than twice what is to be there: none has to go."""
    put(opened, range(1, 651))
    opened.instance.set("preswap.test.writeback_room", "off")
    turns(opened, 2)
    assert opened.device.promoted_below == 0
    opened.instance.set("preswap.test.writeback_room", "25%")
    spare = opened.instance.host.limit // 4
    turns(opened, 2)
    assert -spare < opened.instance.host.lacking() < 0
    assert opened.device.promoted_below is None


def test_room_may_be_set_while_it_runs(full: Running) -> None:
    full.instance.set("preswap.test.writeback_room", "off")
    turns(full)
    assert counters(full)["written_back_pages"] == 0
    full.instance.set("preswap.test.writeback_room", "20%")
    turns(full)
    assert counters(full)["written_back_room"] > 50


def test_what_comes_back_follows_what_goes(full: Running) -> None:
    turns(full)
    below = full.device.promoted_below
    assert below is not None, "something had to go"
    assert below > 0
    full.instance.shrink(0)
    turns(full)
    assert full.device.promoted_below is None, "nothing has to go any more"


@pytest.mark.parametrize("limit", [0, 1, PAGE, MIB // 2])
def test_limits_that_hold_next_to_nothing(full: Running, limit: int) -> None:
    full.instance.host.limit = limit
    turns(full)
    put(full, range(901, 911))
    turns(full)
    check(full, range(1, 911))
    check_coherence(full.instance)


# --- what only caches goes first ---


@pytest.fixture
def cache(opened: Running) -> int:
    """An ephemeral pool as full as it gets beside half a pool of g1's pages; its number."""
    opened.instance.room.turn(0)
    put(opened, range(1, 401))
    host = opened.instance.host
    pool = host.new_pool(b"uuid of an image", SHARED)
    for page in range(2000):
        host.put_page(pool, 0, page, noise(page))
    assert host.pool_stats(pool)["pages"] > 300
    return pool


def cached(running: Running) -> int:
    return running.instance.host.stats()["ephemeral_pages"]


def test_a_cache_alone_makes_no_room_necessary(opened: Running, cache: int) -> None:
    before = cached(opened)
    turns(opened)
    assert cached(opened) == before
    assert counters(opened)["written_back_pages"] == 0


def test_a_cache_yields_before_a_page_is_moved_or_rejected(opened: Running, cache: int) -> None:
    """The guest takes all of the pool but the room, in bursts of half of that."""
    for first in range(401, 701, 100):
        put(opened, range(first, first + 100))
        turns(opened, 3)
    found = counters(opened)
    assert found["failed_stores"] == found["written_back_pages"] == 0
    assert not is_lacking(opened)
    assert opened.instance.host.pool_stats(cache)["evicted"] > 250
    put(opened, range(701, 1401))
    turns(opened)
    assert cached(opened) == 0
    assert counters(opened)["written_back_room"] > 0
    check(opened, range(1, 1401))


def test_a_cache_yields_to_one_burst(opened: Running, cache: int) -> None:
    """Without a turn in between: nothing is rejected while there is anything to evict."""
    put(opened, range(401, 801))
    assert counters(opened)["failed_stores"] == 0
    check(opened, range(1, 801))


def test_a_cache_yields_while_a_guest_writes_on(opened: Running, cache: int) -> None:
    """Whatever is evicted, the guest writes as much again before anybody looks."""
    pages = iter(range(401, 601))
    room = opened.instance.room

    class Host:
        def __getattr__(self, name: str) -> object:
            return getattr(opened.instance.host, name)

        def make_spare(self) -> None:
            opened.instance.host.make_spare()
            put(opened, list(islice(pages, 50)))

    room.host = cast(tmem.Host, Host())
    put(opened, list(islice(pages, 50)))
    turns(opened)
    assert list(pages) == []
    assert not is_lacking(opened)
    assert cached(opened) > 0
    assert counters(opened)["written_back_pages"] == 0
    check(opened, range(1, 601))


def test_frozen_pool_keeps_its_room_from_a_cache(opened: Running, cache: int) -> None:
    put(opened, range(401, 601))
    opened.instance.set("preswap.test.frozen", "1")
    assert is_lacking(opened)
    turns(opened)
    assert not is_lacking(opened)
    assert counters(opened)["written_back_pages"] == 0


def test_pages_come_back_while_a_cache_fills_the_pool(opened: Running, cache: int) -> None:
    """The cache has what would be free without it, and gives it up for a page of a guest."""
    opened.instance.shrink(200)
    for page in range(2000):
        opened.instance.host.put_page(cache, 0, page, noise(page))
    turns(opened)
    check(opened, range(1, 401))
    assert counters(opened)["promoted_pages"] == 200


def test_a_shrink_of_all_drops_what_only_caches(opened: Running, cache: int) -> None:
    opened.instance.shrink(300, "g1")
    assert cached(opened) > 0
    opened.instance.shrink(300)
    assert cached(opened) == 0
    assert counters(opened)["preswap_pages"] == 300


def test_a_lowered_limit_takes_the_cache_first(opened: Running, cache: int) -> None:
    opened.instance.host.limit = 5 * MIB // 2
    opened.instance.fitting.fit("preswap.test.pool_limit")
    opened.fitted()
    assert counters(opened)["written_back_pages"] == 0
    assert opened.instance.host.stats()["mem_used_total"] <= 5 * MIB // 2
    assert cached(opened) > 0


# --- which ---


def test_the_heaviest_sixteenth(full: Running) -> None:
    weights = full.device.weigh(full.instance.epochs.begin())
    victims = Victims()
    victims.weigh([full.device], full.instance.epochs.begin())
    assert sum(weights[victims.least :]) > 900 // 16
    assert sum(weights[victims.least + 1 :]) <= 900 // 16


def test_large_pages_go_before_small_ones_of_their_age(opened: Running) -> None:
    large, small = range(1, 401), range(401, 801)
    connection = opened.device.connect()
    for page in [*large, *small]:
        connection.pwrite(noise(page) if page in large else page_of(3 * page), page * PAGE)
    victims = Victims()
    victims.weigh([opened.device], opened.instance.epochs.begin())
    while victims.are_there:
        victims.go(1.0)
    gone = [page for page in range(1, 801) if opened.device.is_on_disk(page)]
    assert len(gone) >= 50
    assert set(gone) <= set(large)


def test_what_was_touched_since_stays(full: Running) -> None:
    victims = Victims()
    victims.weigh([full.device], full.instance.epochs.begin())
    victims.least = 1  # all of them
    check(full, range(1, 50))
    put(full, range(50, 100))
    full.device.connect().pwrite(b"part", 100 * PAGE + 7)
    while victims.are_there:
        victims.go(0.0)
    gone = {page for page in range(1, 901) if full.device.is_on_disk(page)}
    assert gone == set(range(101, 901))


def test_what_has_gone_is_not_weighed_again_by_itself(full: Running) -> None:
    """A page put again after it has gone is not of those that were weighed."""
    victims = Victims()
    victims.weigh([full.device], full.instance.epochs.begin())
    victims.least = 1
    while victims.are_there:
        victims.go(0.0)
        put(full, range(1, 10))
    assert [page for page, bit in enumerate(full.device.preswap_map) if bit] == list(range(1, 10))
    assert victims.go(0.0) == (0, 0, None)


def test_neighbours_go_along_the_more_the_less_room_is_left() -> None:
    assert [beside(100, free) for free in (1.0, 0.0, 2.0, -1.0)] == [100, 68, 100, 68]
    found = [beside(100, free / 10) for free in range(11)]
    assert found == sorted(found)
    assert beside(3, 0.0) == 1, "0 is what is not in tmem"


@pytest.mark.parametrize(("free", "go"), [(1.0, {10, 20}), (0.0, {9, 10, 11, 12, 20})])
def test_neighbours(opened: Running, free: float, go: set[int]) -> None:
    """Half as heavy beside the heavy ones: 9, 11 and 12; alone: 30; next to nothing: 19, 21."""
    connection = opened.device.connect()
    for page in (9, 11, 12, 30):
        connection.pwrite(noise(page)[: PAGE // 2] + bytes(PAGE // 2), page * PAGE)
    for page in (10, 20):
        connection.pwrite(noise(page), page * PAGE)
    for page in (19, 21, *range(40, 60)):
        connection.pwrite(page_of(3 * page), page * PAGE)
    victims = Victims()
    victims.weigh([opened.device], opened.instance.epochs.begin())
    while victims.are_there:
        victims.go(free)
    assert {page for page in range(1, 60) if opened.device.is_on_disk(page)} == go


def test_no_page_to_go(opened: Running) -> None:
    victims = Victims()
    assert victims.weigh([opened.device], opened.instance.epochs.begin()) is None
    assert not victims.are_there
    assert victims.go(0.0) == (0, 0, None)


# --- quotas ---


def test_a_quota_keeps_room_for_its_own_hot_pages(opened: Running) -> None:
    opened.instance.host.limit = 2 * LIMIT
    put(opened, range(1, 301), "g2")
    opened.instance.set(QUOTA, "1200")
    for first in range(1, 1801, 30):
        put(opened, range(first, first + 30))
        turns(opened, 1)
    assert counters(opened)["failed_stores"] == 0
    assert 600 < opened.device.preswap_pages <= 1200
    assert counters(opened, "g2")["written_back_pages"] == 0
    assert opened.device.promoted_below is not None
    assert opened.instance.devices["g2"].promoted_below is None
    check(opened, range(1, 1801))
    check(opened, range(1, 301), "g2")


def test_a_quota_without_pages_weighs_nothing(opened: Running) -> None:
    """A quota of 0 has never any room: each look would begin an epoch."""
    opened.instance.sysctl.quotas["g1"] = 0
    epochs = opened.instance.epochs
    begun = epochs.begin()
    turns(opened, 5)
    assert epochs.begin() == begun + 1


def test_a_quota_that_was_lifted_keeps_nothing_from_coming_back(opened: Running) -> None:
    opened.instance.host.limit = 2 * LIMIT
    opened.instance.set(QUOTA, "1200")
    put(opened, range(1, 1000))
    turns(opened, 2)
    assert opened.device.promoted_below is not None
    opened.instance.set(QUOTA, "default")
    turns(opened, 2)
    assert opened.device.promoted_below is None


def test_what_comes_back_is_bounded_by_pool_and_quota(opened: Running) -> None:
    room = opened.instance.room
    opened.instance.sysctl.quotas["g1"] = 100
    put(opened, range(1, 80))
    weights = ((500, 300, 300), (300, 500, 300), (None, 300, 300), (500, None, 500))
    for pool, quota, least in weights:
        room.pool.comes_back = pool
        room.quotas[opened.device] = Within(comes_back=quota)
        room.tell(opened.instance.all_devices())
        assert opened.device.promoted_below == least
        assert opened.instance.devices["g2"].promoted_below == pool


def test_limits_and_quotas_that_swing(opened: Running) -> None:
    rng = random.Random(3)
    for _ in range(60):
        opened.instance.host.limit = rng.choice([0, MIB, LIMIT])
        opened.instance.set(QUOTA, rng.choice(["0", "10", "200", "default"]))
        put(opened, [rng.randrange(1, 900) for _ in range(20)], rng.choice(["g1", "g2"]))
        turns(opened, 2)
        opened.fitted()
        assert opened.device.preswap_pages <= opened.device.max_pages
    check_coherence(opened.instance)
    for name, device in opened.instance.devices.items():
        found = read(device.connect())
        for page in range(1, device.pages):
            assert found[page * PAGE : (page + 1) * PAGE] in (bytes(PAGE), noise(page)), name


# --- when not ---


def test_frozen_pages_stay_where_they_are(full: Running) -> None:
    full.instance.set("preswap.test.frozen", "1")
    turns(full)
    assert is_lacking(full)
    assert counters(full)["written_back_pages"] == 0
    full.instance.set("preswap.test.frozen", "0")
    turns(full)
    assert not is_lacking(full)


def test_a_shrink_under_way_moves_alone(full: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full.instance.shrinks, "under_way", lambda: cast(Shrink, object()))
    full.instance.sysctl.quotas["g1"] = 100
    turns(full)
    assert counters(full)["written_back_pages"] == 0


def test_a_shrink_that_begins_takes_over(full: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else both would move what is above the quota, and twice as many pages would go."""

    def under_way() -> Shrink | None:
        return cast(Shrink, object()) if counters(full)["written_back_pages"] else None

    monkeypatch.setattr(full.instance.shrinks, "under_way", under_way)
    full.instance.sysctl.quotas["g1"] = 100
    turns(full)
    assert 0 < counters(full)["written_back_pages"] <= EXTENT_PAGES


def test_a_disk_that_fails_is_left_alone_for_a_while(full: Running) -> None:
    """No page is lost, no write of a guest fails that would not have failed without room."""
    size = full.device.size
    os.truncate(full.paths.disk_file("g1"), PAGE)
    turns(full)
    assert counters(full)["disk_errors"] == 1
    assert counters(full)["written_back_pages"] == 0
    put(full, range(1, 901))
    put(full, range(901, 911))
    check(full, range(1, 911))
    os.truncate(full.paths.disk_file("g1"), size)
    turns(full)
    assert counters(full)["written_back_pages"] == 0, "not before its time"
    for device in full.instance.room.retry_at:
        full.instance.room.retry_at[device] = 0.0
    turns(full)
    assert not is_lacking(full)
    check(full, range(1, 911))


def test_one_disk_that_fails_leaves_it_to_the_others(opened: Running) -> None:
    put(opened, range(1, 451))
    put(opened, range(1, 451), "g2")
    os.truncate(opened.paths.disk_file("g1"), PAGE)
    turns(opened)
    assert not is_lacking(opened)
    assert counters(opened)["written_back_pages"] == 0
    assert counters(opened, "g2")["written_back_room"] > 100
    check(opened, range(1, 451))
    check(opened, range(1, 451), "g2")


def test_a_device_that_is_removed_is_forgotten(full: Running) -> None:
    """With its maps, and whatever its disk had failed with."""
    room, gone = full.instance.room, full.device
    os.truncate(full.paths.disk_file("g1"), PAGE)
    full.instance.sysctl.quotas["g1"] = 1000
    turns(full, 2)
    room.pool.victims.weigh(full.instance.all_devices(), full.instance.epochs.begin())
    assert gone in room.retry_at
    assert gone in room.quotas
    assert gone in room.pool.victims.devices
    full.instance.remove("g1", force=True)
    turns(full, 1)
    assert gone not in room.retry_at
    assert gone not in room.quotas
    assert gone not in room.pool.victims.devices


def test_a_device_that_is_removed_in_the_middle(full: Running) -> None:
    put(full, range(1, 51), "g2")
    room, devices = full.instance.room, full.instance.all_devices()
    room.pool.victims.weigh(devices, full.instance.epochs.begin())
    room.pool.victims.least = 1
    assert room.pool.victims.go(0.0)[0] > 0
    full.instance.remove("g1", force=True)
    gone, in_memory = 0, full.instance.devices["g2"].preswap_pages
    assert in_memory > 20
    while room.pool.victims.are_there:
        moved, number, _ = room.pool.victims.go(0.0)
        assert number == 0
        gone += moved
    assert gone == in_memory
    check(full, range(1, 51), "g2")


@pytest.mark.parametrize("stage", ["weigh", "writeback_next_heavy"])
def test_a_device_that_is_removed_at_any_moment(
    full: Running, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Between a look at which devices there are and each thing that is done with them."""
    full.instance.sysctl.quotas["g1"] = 100
    devices = full.instance.all_devices()
    put(full, range(1, 101), "g2")
    if stage == "writeback_next_heavy":
        full.instance.room.pool.victims.weigh(devices, full.instance.epochs.begin())
    full.instance.remove("g1", force=True)
    monkeypatch.setattr(full.instance.room, "devices", lambda: devices)
    full.instance.host.limit = MIB // 4
    turns(full, 3)
    monkeypatch.undo()
    monkeypatch.setattr(room_module, "PAUSE_SECONDS", 0.0)
    turns(full, 3)
    check(full, range(1, 101), "g2")
    assert devices[0] not in {**full.instance.room.quotas, **full.instance.room.retry_at}


def test_a_clean_device_that_has_no_page_to_go_stays_clean(opened: Running) -> None:
    """Else a power cut would lose all that a sync or a stop has saved."""
    put(opened, range(1, 101))
    assert opened.instance.begin_sync("g1").wait().complete
    put(opened, range(1, 901), "g2")
    turns(opened)
    assert counters(opened, "g2")["written_back_room"] > 100
    assert not opened.device.is_marked
    opened.reboot()
    opened.open(known=False)
    check(opened, range(1, 101))


def test_a_clean_device_is_marked_before_a_page_goes(full: Running) -> None:
    full.stop()
    instance = full.open()
    instance.host.limit = LIMIT
    assert not full.device.is_marked
    instance.sysctl.policy.writeback_room = 0.25
    turns(full)
    assert counters(full)["written_back_room"] > 0
    assert full.device.is_marked
    assert not full.sidecar().clean
    check(full, range(1, 901))


def test_a_damaged_page_is_lost_and_no_older_one_is_served(opened: Running) -> None:
    """Each page was on disk before it was put again."""
    connection = opened.device.connect()
    for page in range(1, 901):
        connection.pwrite(page_of(3 * page), page * PAGE)
    opened.instance.shrink(0)
    put(opened, range(1, 901))
    damage_one_payload(opened)
    victims = Victims()
    victims.weigh([opened.device], opened.instance.epochs.begin())
    victims.least = 1
    while victims.are_there:
        victims.go(0.0)
    assert counters(opened)["lost_pages"] == 1
    wrong = 0
    for page in range(1, 901):
        try:
            assert read(connection, page * PAGE, PAGE) == noise(page)
        except OSError:
            wrong += 1
    assert wrong == 1
    check_coherence(opened.instance)
