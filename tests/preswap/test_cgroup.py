# SPDX-License-Identifier: BSD-3-Clause
"""A memory cgroup that gets too small for what clients may take has pages go to disk."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from preswapd.preswap import opening
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import MIB, Running, read
from tests.running import wait_until
from tests.tmem.test_headroom import Group

SIZE = 8 * MIB - 8 * PAGE
NOISE = os.urandom(SIZE - PAGE)
LIMIT = 100 * MIB
# Of the limit, what is kept to the last: see headroom.c.
LAST = 8 * MIB
OTHERS = 40 * MIB


class Charged(Group):
    """A cgroup to which others are charged, and the arena or a share of it."""

    first_pool = 0

    def follow(self, running: Running, share: float = 1.0) -> None:
        pool = running.instance.host.stats()["mem_used_total"]
        charged = OTHERS + int(pool * share) + int(self.first_pool * (1 - share))
        # In place: a file that is written anew is empty for a moment.
        with (self.folder / "current").open("r+b") as file:
            file.write(b"%020d\n" % charged)


@pytest.fixture
def group(running: Running, monkeypatch: pytest.MonkeyPatch) -> Charged:
    made = Charged(running.paths.shm_dir.parent / "group")
    made.say(max=LIMIT, high="max", current=OTHERS, stat="inactive_file 0")
    monkeypatch.setattr(opening, "memory_files", lambda: [made.files])
    return made


@pytest.fixture
def filled(running: Running, group: Charged) -> Running:
    running.settings = replace(running.settings, pool_size=32 * MIB)
    running.open(DeviceSpec("g1", SIZE), DeviceSpec("g2", SIZE))
    for device in running.instance.devices.values():
        device.connect().pwrite(NOISE, PAGE)
    group.first_pool = running.instance.host.stats()["mem_used_total"]
    group.follow(running)
    return running


@pytest.fixture
def following(filled: Running, group: Charged) -> Iterator[Callable[[float], None]]:
    """Keeps the group's usage right from now on, by the share of what the pool gives back."""
    end = threading.Event()
    threads = []

    def begin(share: float) -> None:
        def follow() -> None:
            while not end.wait(0.001):
                group.follow(filled, share)

        threads.append(threading.Thread(target=follow))
        threads[-1].start()

    yield begin
    end.set()
    for thread in threads:
        thread.join()


def set_aside(running: Running, lacking: int) -> None:
    """So much that the group is too small by so many bytes."""
    host = running.instance.host
    pool = host.stats()["mem_used_total"]
    host.set_aside(LIMIT - LAST - OTHERS - pool + lacking)
    assert host.owed() == lacking


def ended(fit: Shrink | None) -> Shrink:
    assert fit is not None
    fit.ended.wait()
    return fit


def test_pool_gives_back_what_is_owed(filled: Running, following: Callable[[float], None]) -> None:
    instance = filled.instance
    before = instance.host.stats()["mem_used_total"]
    set_aside(filled, 4 * MIB)
    following(1.0)
    fit = ended(instance.fit_cgroup())
    assert fit.result is not None
    assert fit.result.complete, fit.result
    assert instance.host.owed() == 0
    assert before - 7 * MIB < instance.host.stats()["mem_used_total"] <= before - 4 * MIB
    assert instance.fit_cgroup() is None
    for device in instance.devices.values():
        assert read(device.connect(), PAGE, len(NOISE)) == NOISE
    check_coherence(instance)


def test_limit_is_what_it_was(filled: Running, following: Callable[[float], None]) -> None:
    """Once it has ended, pages get in again where there is room; nobody has set another limit."""
    instance = filled.instance
    limit = instance.host.limit
    set_aside(filled, 4 * MIB)
    following(1.0)
    ended(instance.fit_cgroup())
    assert instance.host.limit == limit
    instance.host.set_aside(0)
    for device in instance.devices.values():
        device.connect().pwrite(NOISE, PAGE)
        assert device.preswap_pages == len(NOISE) // PAGE


def test_memory_that_another_cgroup_is_charged_for(
    filled: Running, following: Callable[[float], None]
) -> None:
    """It stops once that is seen, and does not begin again at once."""
    instance = filled.instance
    set_aside(filled, 12 * MIB)
    following(0.0)
    fit = ended(instance.fit_cgroup())
    assert fit.has_failed
    assert instance.host.stats()["mem_used_total"] >= 2 * MIB
    assert instance.fit_cgroup() is None


def test_frozen_pool_stays(filled: Running) -> None:
    set_aside(filled, 4 * MIB)
    filled.instance.set("preswap.test.frozen", "1")
    assert filled.instance.fit_cgroup() is None


def test_maintenance_begins_it(filled: Running, following: Callable[[float], None]) -> None:
    """Something else has grown: maps of a device that a guest touches far apart."""
    instance = filled.instance
    set_aside(filled, 4 * MIB)
    following(1.0)
    instance.maintain()
    wait_until(lambda: instance.host.owed() == 0, "memory to be given back")
    connection = instance.devices["g2"].connect()
    connection.pwrite(page_of(1), PAGE)
    assert read(connection, PAGE, PAGE) == page_of(1)
