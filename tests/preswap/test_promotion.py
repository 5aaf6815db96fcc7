# SPDX-License-Identifier: BSD-3-Clause
"""A page that is read from disk comes back into tmem, where it may and is worth its room."""

import os
from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from preswapd.preswap.device._device import FLAG_FUA, Device
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, pages_read, read
from tests.preswap.test_shrink import damage_one_payload

PAGES = 30
EVERY_PAGE = range(1, PAGES + 1)
SMALL = [page for page in EVERY_PAGE if page % 3 == 0]  # as page_of() makes them
LARGE = [page for page in EVERY_PAGE if page % 3 == 2]


def counters(running: Running) -> Mapping[str, int]:
    return cast(Mapping[str, int], running.device.stats())


def in_memory(running: Running) -> list[int]:
    return [page for page, bit in enumerate(running.device.preswap_map) if bit]


def read_all(running: Running) -> None:
    """One by one, and right."""
    connection = running.connect()
    for page in EVERY_PAGE:
        assert read(connection, page * PAGE, PAGE) == page_of(page), f"page {page}"


@pytest.fixture
def on_disk(running: Running) -> Running:
    """Pages 1 to 30 on disk, written by this process; every page that is read may come back."""
    running.open()
    for page in EVERY_PAGE:
        running.connect().pwrite(page_of(page), page * PAGE)
    running.instance.shrink(0)
    running.device.promoted_below = None
    return running


def test_what_is_read_comes_back_and_is_read_from_memory(on_disk: Running) -> None:
    read_all(on_disk)
    assert in_memory(on_disk) == list(EVERY_PAGE)
    assert counters(on_disk)["promoted_pages"] == PAGES
    read_all(on_disk)
    assert counters(on_disk)["disk_reads"] == PAGES
    check_coherence(on_disk.instance)


def test_what_comes_back_is_no_put(on_disk: Running) -> None:
    before = counters(on_disk)["succ_stores"], counters(on_disk)["failed_stores"]
    read_all(on_disk)
    assert (counters(on_disk)["succ_stores"], counters(on_disk)["failed_stores"]) == before


def test_one_read_of_many_pages_brings_all_back(on_disk: Running) -> None:
    for _ in range(2):
        found = read(on_disk.connect(), PAGE, PAGES * PAGE)
        assert found == b"".join(map(page_of, EVERY_PAGE))
        assert in_memory(on_disk) == list(EVERY_PAGE)


def test_a_read_of_a_part_brings_the_whole_page_back(on_disk: Running) -> None:
    assert read(on_disk.connect(), 5 * PAGE + 100, 10) == page_of(5)[100:110]
    assert in_memory(on_disk) == [5]
    assert read(on_disk.connect(), 5 * PAGE, PAGE) == page_of(5)


def test_what_came_back_may_go_again(on_disk: Running) -> None:
    for _ in range(3):
        read_all(on_disk)
        assert on_disk.instance.shrink(0).moved == PAGES
    assert in_memory(on_disk) == []
    read_all(on_disk)


def test_before_anybody_says_so_nothing_comes_back(running: Running) -> None:
    running.open()
    running.connect().pwrite(page_of(1), PAGE, FLAG_FUA)
    assert running.device.promoted_below == 0
    assert read(running.connect(), PAGE, PAGE) == page_of(1)
    assert in_memory(running) == []


def test_only_what_weighs_less_comes_back(on_disk: Running) -> None:
    """All of one age: the large ones stay where they are."""
    on_disk.instance.epochs.set_turn(1 << 40)
    on_disk.device.promoted_below = 1000
    read_all(on_disk)
    found = in_memory(on_disk)
    assert set(SMALL) <= set(found)
    assert not set(LARGE) & set(found)


def test_what_nobody_has_touched_for_long_stays(on_disk: Running) -> None:
    """After a restart what is on disk is of the greatest age; its second read finds it young."""
    on_disk.kill()
    instance = on_disk.open()
    instance.epochs.set_turn(1 << 40)
    on_disk.device.promoted_below = 1000
    read_all(on_disk)
    assert in_memory(on_disk) == []
    read_all(on_disk)
    assert set(SMALL) <= set(in_memory(on_disk))


# --- where nothing may come back ---


def test_reads_of_a_clean_device_change_nothing(on_disk: Running) -> None:
    """Rules K2 and K4: its saved map holds, whatever was read and however often it starts."""
    on_disk.stop()
    for _ in range(2):
        on_disk.open()
        on_disk.device.promoted_below = None
        before = on_disk.snapshot()
        read_all(on_disk)
        read_all(on_disk)
        assert on_disk.snapshot() == before
        assert not on_disk.device.is_marked
        assert in_memory(on_disk) == []
        on_disk.kill()
        on_disk.reboot()
    on_disk.open()
    read_all(on_disk)


def test_a_clean_device_takes_pages_back_once_it_was_changed(on_disk: Running) -> None:
    on_disk.stop()
    on_disk.open()
    on_disk.device.promoted_below = None
    on_disk.connect().pwrite(page_of(1), PAGE)
    read_all(on_disk)
    assert in_memory(on_disk) == list(EVERY_PAGE)


def test_after_a_sync_reads_leave_all_on_disk(on_disk: Running) -> None:
    """Else a reboot of the host would lose what a guest has only read."""
    assert on_disk.instance.begin_sync().wait().complete
    on_disk.device.promoted_below = None
    read_all(on_disk)
    on_disk.reboot()
    on_disk.open()
    read_all(on_disk)


def test_the_zone_stays_on_disk(running: Running) -> None:
    running.open(DeviceSpec("g1", 16 * MIB))
    device = running.device
    device.promoted_below = None
    read(running.connect())
    assert in_memory(running) == []
    assert device.is_on_disk(0)


def test_not_above_a_quota(on_disk: Running) -> None:
    on_disk.device.max_pages = 10
    read_all(on_disk)
    assert in_memory(on_disk) == list(range(1, 11))


def test_not_while_the_pool_is_frozen(on_disk: Running) -> None:
    before = on_disk.instance.host.stats()
    on_disk.instance.set("preswap.test.frozen", "1")
    read_all(on_disk)
    assert in_memory(on_disk) == []
    after = on_disk.instance.host.stats()
    assert after["pool_limit_hit"] == before["pool_limit_hit"], "it is no rejected put"
    on_disk.instance.set("preswap.test.frozen", "0")
    read_all(on_disk)
    assert in_memory(on_disk) == list(EVERY_PAGE)


@pytest.mark.parametrize("name", [None, "g1"])
def test_not_while_a_shrink_or_a_sync_holds_pages_down(on_disk: Running, name: str | None) -> None:
    sysctl = on_disk.instance.sysctl
    if name is None:
        on_disk.instance.host.set_max_pages(sysctl.pool, 3)
    else:
        sysctl.hold_down(on_disk.device, 3)
    read_all(on_disk)
    assert in_memory(on_disk) == [1, 2, 3]


@pytest.mark.parametrize("name", [None, "g1"])
def test_a_sync_saves_what_is_read_meanwhile(
    on_disk: Running, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """The map that it saves knows every page after a reboot of the host."""
    read_all(on_disk)
    save_maps = on_disk.instance.save_maps

    def read_and_save(devices: Sequence[Device], complete: bool) -> str | None:
        read_all(on_disk)
        return save_maps(devices, complete)

    monkeypatch.setattr(on_disk.instance, "save_maps", read_and_save)
    assert on_disk.instance.begin_sync(name).wait().complete
    on_disk.reboot()
    on_disk.open()
    read_all(on_disk)


def test_not_above_the_limit(on_disk: Running) -> None:
    on_disk.instance.host.limit = 0
    on_disk.instance.host.maintain(all=True)
    before = on_disk.instance.host.stats()["pool_limit_hit"]
    read_all(on_disk)
    assert in_memory(on_disk) == []
    assert on_disk.instance.host.stats()["pool_limit_hit"] == before


def test_what_comes_back_takes_no_room_from_puts(running: Running) -> None:
    """In a pool that is full of it a put over a page still finds its place."""
    running.open()
    pages = range(1, 250)
    for page in pages:
        running.connect().pwrite(page_of(3 * page + 2), page * PAGE, FLAG_FUA)
    running.instance.host.limit = 500_000
    running.device.promoted_below = None
    for page in pages:
        assert read(running.connect(), page * PAGE, PAGE) == page_of(3 * page + 2)
    found = in_memory(running)
    assert 50 < len(found) < 249
    assert running.instance.host.stats()["mem_used_total"] <= 500_000
    for page in found:
        running.connect().pwrite(page_of(3 * page + 5), page * PAGE)
    assert counters(running)["failed_stores"] <= len(found) // 20


# --- what fails ---


def test_a_read_that_fails_brings_nothing_back(on_disk: Running) -> None:
    os.truncate(on_disk.paths.disk_file("g1"), 10 * PAGE)
    connection = on_disk.connect()
    for page in range(10, PAGES + 1):
        with pytest.raises(OSError, match="Input/output error"):
            read(connection, page * PAGE, PAGE)
    assert in_memory(on_disk) == []
    assert counters(on_disk)["promoted_pages"] == 0
    assert read(connection, 9 * PAGE, PAGE) == page_of(9)
    check_coherence(on_disk.instance)


def test_what_came_back_and_is_damaged_is_an_error(on_disk: Running) -> None:
    """Of one page; nobody looks for it on disk, where it may be an older one."""
    read_all(on_disk)
    damage_one_payload(on_disk)
    found = pages_read(on_disk.connect())[1 : PAGES + 1]
    assert found.count(None) == 1
    assert all(page in (None, page_of(number)) for number, page in enumerate(found, 1))
    check_coherence(on_disk.instance)


def test_what_came_back_survives_a_kill_and_a_broken_disk(on_disk: Running) -> None:
    """It is in memory by then, and nowhere else as far as anybody knows."""
    read_all(on_disk)
    on_disk.kill()
    with on_disk.paths.disk_file("g1").open("r+b") as file:
        file.seek(PAGE)
        file.write(os.urandom(PAGES * PAGE))
    instance = on_disk.open()
    assert instance.recovery.lost_pages == 0
    read_all(on_disk)


def test_what_came_back_and_was_trimmed_stays_zeros(on_disk: Running) -> None:
    """Its blocks on disk are given back, and no start finds it there again."""
    read_all(on_disk)
    on_disk.connect().trim(PAGES * PAGE, PAGE)
    on_disk.instance.maintain()
    on_disk.kill()
    on_disk.open()
    on_disk.device.promoted_below = None
    assert read(on_disk.connect(), PAGE, PAGES * PAGE) == bytes(PAGES * PAGE)
    assert in_memory(on_disk) == []
    assert counters(on_disk)["stale_pages"] == 0
