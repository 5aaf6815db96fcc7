# SPDX-License-Identifier: BSD-3-Clause
"""A sync, in one process: what it leaves clean stays clean until a guest changes something."""

import errno
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from preswapd.api.settings import NO_LIMIT
from preswapd.errors import RefusedError
from preswapd.preswap.device._device import Device
from preswapd.preswap.opening import POOL
from preswapd.preswap.record import Record
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.running import Running, read
from tests.running import PATIENCE

NOISE = random.Random(5).randbytes(128 * PAGE)


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Running]:
    """Nobody does maintenance here but the test."""
    with Running(tmp_path) as running:
        running.open(known=False)
        running.connect().pwrite(NOISE, PAGE)
        yield running


def test_blocks_that_are_to_go_back_go_before_the_map_is_saved(filled: Running) -> None:
    """As the server's own work they would be a change, a moment after the sync."""
    filled.instance.shrink(0)
    filled.connect().trim(64 * PAGE, PAGE)
    assert filled.instance.begin_sync().wait().complete
    for _ in range(3):
        filled.instance.maintain()
    assert not filled.device.is_marked
    assert filled.sidecar().clean
    filled.reboot()
    filled.open()
    assert read(filled.connect(), PAGE, len(NOISE)) == bytes(64 * PAGE) + NOISE[64 * PAGE :]


@pytest.mark.parametrize("call", [Device.punch, Device.punch_unused])
def test_blocks_stay_where_a_sync_came_first(
    filled: Running, call: Callable[[Device], None]
) -> None:
    """Maintenance has seen that the device is not clean, and then waits until the map is saved."""
    filled.instance.shrink(0)
    filled.connect().trim(64 * PAGE, PAGE)
    device = filled.device
    assert device.park(1000)
    upkeep = threading.Thread(target=call, args=(device,))
    upkeep.start()
    filled.instance.save(filled.instance.served["g1"])
    device.resume()
    upkeep.join(PATIENCE)
    assert not device.is_marked
    assert filled.sidecar().clean
    # Nothing is forgotten: it is done as soon as a guest changes something.
    blocks = filled.paths.disk_file("g1").stat().st_blocks
    filled.connect().pwrite(NOISE[:PAGE], PAGE)
    call(device)
    assert filled.paths.disk_file("g1").stat().st_blocks < blocks


def test_map_of_what_could_not_move_is_saved_too(filled: Running) -> None:
    """Known pages stay known, and those that were in memory are not taken for others."""
    filled.instance.shrink(64)
    sync = filled.instance.begin_sync()
    sync.stop()
    sync.wait()
    on_disk = filled.device.disk_pages
    assert filled.sidecar().clean
    filled.reboot()
    filled.open()
    assert filled.device.disk_pages == on_disk
    assert filled.device.stats()["unknown_pages"] == filled.device.pages - on_disk


@pytest.mark.parametrize("name", [None, "g1"])
def test_put_that_was_under_way_when_its_device_was_held_down(
    filled: Running, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    """It lands in tmem after the last page has left, and before the map is saved."""
    late = random.Random(6).randbytes(PAGE)
    save_maps = filled.instance.save_maps
    connection = filled.connect()

    def put_and_save(devices: Sequence[Device], complete: bool) -> str | None:
        assert filled.device.preswap_pages == 0
        limits = filled.device.max_pages
        filled.instance.host.set_max_pages(POOL, NO_LIMIT)
        filled.device.max_pages = filled.device.pages
        connection.pwrite(late, 7 * PAGE)
        assert filled.device.preswap_pages == 1
        filled.device.max_pages = limits
        filled.instance.host.set_max_pages(POOL, 0 if name is None else NO_LIMIT)
        return save_maps(devices, complete)

    monkeypatch.setattr(filled.instance, "save_maps", put_and_save)
    assert filled.instance.begin_sync(name).wait().complete
    filled.reboot()
    filled.open()
    assert read(filled.connect(), 7 * PAGE, PAGE) == late


def test_sync_of_a_device_that_went_meanwhile(filled: Running) -> None:
    filled.instance.remove("g1")
    with pytest.raises(RefusedError, match="there is no device g1 any more"):
        filled.instance.begin_sync("g1")
    assert filled.instance.begin_sync().wait().complete


def test_second_sync_is_refused_while_one_runs(filled: Running) -> None:
    """The first is held where it saves the map, which operators' changes exclude."""
    with filled.instance.changes:
        first = filled.instance.begin_sync()
        with pytest.raises(RefusedError, match="a sync is under way already"):
            filled.instance.begin_sync()
        with pytest.raises(RefusedError, match="a sync is under way already"):
            filled.instance.begin_shrink(0)
    assert first.wait().complete


def test_stop_waits_for_the_sync_that_saves_a_map(
    filled: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once would write the same files."""
    monkeypatch.setattr("preswapd.preswap.instance.PARK_MILLISECONDS", 20)
    saving, may_go_on = threading.Event(), threading.Event()
    saves: list[str] = []
    save = Record.save

    def slow(record: Record, pieces: Iterable[bytes]) -> None:
        saves.append("begins")
        saving.set()
        may_go_on.wait()
        save(record, pieces)
        saves.append("ends")

    monkeypatch.setattr(Record, "save", slow)
    filled.instance.begin_sync()
    assert saving.wait(PATIENCE)
    stop = threading.Thread(target=filled.instance.close)
    stop.start()
    # Well beyond the time that a stop waits for operators.
    stop.join(0.3)
    assert stop.is_alive()
    may_go_on.set()
    stop.join(PATIENCE)
    assert saves == ["begins", "ends"]
    assert filled.sidecar().clean


def test_trim_makes_zeros_of_unknown_pages_only(filled: Running) -> None:
    unknown = filled.device.stats()["unknown_pages"]
    assert filled.instance.trim("g1") == unknown == filled.device.pages - 129
    connection = filled.connect()
    assert read(connection, PAGE, len(NOISE)) == NOISE
    assert read(connection, PAGE + len(NOISE)) == bytes(filled.device.size - PAGE - len(NOISE))
    assert filled.instance.trim("g1") == 0


def test_trim_leaves_lost_pages_lost(filled: Running) -> None:
    filled.instance.shrink(0)
    filled.kill()
    with filled.paths.disk_file("g1").open("r+b") as file:
        file.truncate(64 * PAGE)
        file.truncate(filled.settings.devices[0].size)
    filled.open()
    lost = filled.device.stats()["lost_pages"]
    assert lost > 0
    filled.instance.trim("g1")
    assert filled.device.stats()["lost_pages"] == lost
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read(filled.connect(), 100 * PAGE, PAGE)
