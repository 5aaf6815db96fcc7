# SPDX-License-Identifier: BSD-3-Clause
"""A memory cgroup that gets too small for what clients may take has pages go to disk."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from preswapd.preswap import opening
from preswapd.preswap.device._device import Device
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback.goals import Goal, ToCgroup
from preswapd.preswap.writeback.moves import Writeback
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.running import MIB, Running, read
from tests.tmem.test_headroom import Group

SIZE = 8 * MIB - 8 * PAGE
NOISE = os.urandom(SIZE - PAGE)
LIMIT = 110 * MIB
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
    running.open(*(DeviceSpec(name, SIZE) for name in ("g1", "g2", "g3")))
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


def no_more() -> int:
    """Clients come to be promised nothing while pages leave."""
    return 0


def ended(fit: Shrink | None) -> Shrink:
    assert fit is not None
    fit.ended.wait()
    return fit


def test_pool_gives_back_what_is_owed(filled: Running, following: Callable[[float], None]) -> None:
    instance = filled.instance
    before = instance.host.stats()["mem_used_total"]
    set_aside(filled, 4 * MIB)
    following(1.0)
    fit = ended(instance.fit_cgroup(no_more))
    assert fit.result is not None
    assert fit.result.complete, fit.result
    assert instance.host.owed() == 0
    assert before - 7 * MIB < instance.host.stats()["mem_used_total"] <= before - 4 * MIB
    assert instance.fit_cgroup(no_more) is None
    for device in instance.devices.values():
        assert read(device.connect(), PAGE, len(NOISE)) == NOISE
    check_coherence(instance)


def test_limit_is_what_it_was(filled: Running, following: Callable[[float], None]) -> None:
    """Once it has ended, pages get in again where there is room; nobody has set another limit."""
    instance = filled.instance
    limit = instance.host.limit
    set_aside(filled, 4 * MIB)
    following(1.0)
    ended(instance.fit_cgroup(no_more))
    assert instance.host.limit == limit
    instance.host.set_aside(0)
    for device in instance.devices.values():
        device.connect().pwrite(NOISE, PAGE)
        assert device.preswap_pages == len(NOISE) // PAGE


def test_memory_that_another_cgroup_is_charged_for(
    filled: Running, following: Callable[[float], None]
) -> None:
    """No more goes than was owed, and not again at once."""
    instance = filled.instance
    before = instance.host.stats()["mem_used_total"]
    set_aside(filled, 4 * MIB)
    following(0.0)
    fit = ended(instance.fit_cgroup(no_more))
    assert fit.has_failed
    assert instance.host.stats()["mem_used_total"] >= before - 9 * MIB
    assert instance.fit_cgroup(no_more) is None


def test_more_is_owed_while_it_is_given_back(
    filled: Running, following: Callable[[float], None]
) -> None:
    """Another client comes: the one that is under way goes on for both."""
    instance = filled.instance
    pool = instance.host.stats()["mem_used_total"]
    set_aside(filled, 2 * MIB)
    following(1.0)
    first = instance.fit_cgroup(no_more)
    instance.host.set_aside(LIMIT - LAST - OTHERS - pool + 6 * MIB)
    second = instance.fit_cgroup(no_more)
    for fit in filter(None, (first, second)):
        fit.ended.wait()
    third = instance.fit_cgroup(no_more)
    if third is not None:  # the first had ended before more was owed
        third.ended.wait()
    assert instance.host.owed() == 0
    assert pool - 9 * MIB < instance.host.stats()["mem_used_total"] <= pool - 6 * MIB


class Later(Goal):
    """Of a round nothing is wanted any more when it begins, and more when it has ended."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.all = devices
        self.most = self.left() - 100
        self.rounds = 0

    def devices(self) -> Sequence[Device]:
        return self.all

    def aim(self) -> None:
        self.rounds += 1

    def target(self) -> int:
        return self.left() if self.rounds == 1 else self.most

    def is_met(self) -> bool:
        return self.left() <= self.most


def test_more_is_owed_when_a_round_has_found_nothing_to_do(filled: Running) -> None:
    instance = filled.instance
    goal = Later(list(instance.devices.values()))
    work = Writeback(instance.host, goal, lambda progress: None, lambda: False)
    assert work.run().complete
    assert goal.left() == goal.most


class Met(Later):
    """Met once, and missed when it is asked again."""

    asked = 0

    def is_met(self) -> bool:
        self.asked += 1
        return self.asked == 1


def test_goal_that_was_met_is_no_failure(filled: Running) -> None:
    instance = filled.instance
    goal = Met(list(instance.devices.values()))
    assert Writeback(instance.host, goal, lambda progress: None, lambda: False).run().complete


def test_client_that_has_left_again_has_no_pages_leave(filled: Running) -> None:
    instance = filled.instance
    goal = ToCgroup(instance.host, lambda: list(instance.devices.values()), no_more)
    set_aside(filled, 6 * MIB)
    goal.aim()
    assert goal.above() > 0
    instance.host.set_aside(0)
    assert goal.above() == 0


@pytest.mark.parametrize("charged", [1.0, 0.0])
def test_client_that_comes_when_pages_have_left(
    filled: Running, following: Callable[[float], None], charged: float
) -> None:
    """What it was promised leaves too, however much has gone by then, and no more."""
    instance = filled.instance
    pool = instance.host.stats()["mem_used_total"]
    set_aside(filled, 6 * MIB)
    following(charged)
    seen = []

    def promised() -> int:
        seen.append(pool - instance.host.stats()["mem_used_total"])
        if seen[-1] < 5 * MIB:
            return 0
        instance.host.set_aside(LIMIT - LAST - OTHERS - pool + 13 * MIB)
        return 7 * MIB

    fit = ended(instance.fit_cgroup(promised))
    assert max(seen) >= 5 * MIB
    assert fit.has_failed == (charged == 0)
    assert (instance.host.owed() == 0) == (charged == 1)
    left = pool - instance.host.stats()["mem_used_total"]
    assert 13 * MIB <= left < 18 * MIB


def test_empty_pool_would_be_too_little(filled: Running) -> None:
    set_aside(filled, 40 * MIB)
    assert filled.instance.fit_cgroup(no_more) is None


def test_frozen_pool_stays(filled: Running) -> None:
    set_aside(filled, 4 * MIB)
    filled.instance.set("preswap.test.frozen", "1")
    assert filled.instance.fit_cgroup(no_more) is None
