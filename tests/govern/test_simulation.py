# SPDX-License-Identifier: BSD-3-Clause
"""The policy on simulated hosts: hours of guests that grow, idle and thrash, of other programs, of
Proxmox's ballooning and a ZFS-like cache, with fast disks and slow ones."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preswapd.govern.policy import TICK_SECONDS, Reason, Rules, band
from preswapd.govern.shares import LEAST, MIB, Share, bounds
from tests.govern.world import (
    GIB,
    HOUR,
    STEP,
    Course,
    Guest,
    World,
    always,
    between,
    day,
    governed_total,
    nothing_waits,
    reversals,
    steps,
)

RESERVE = 1280 * MIB
RULES = Rules(RESERVE)
# What steps of whole mebibytes, and the moment between two ticks, may differ by.
SLACK = 2 * MIB


def noisy(level: float, noise: float, seed: int = 0) -> Course:
    """Constant, as a loaded host is: up and down within seconds."""

    def value(time: float) -> float:
        return level + random.Random(f"{seed} {round(time / STEP)}").uniform(-noise, noise)

    return value


# --- what always holds ---


def check(world: World) -> None:
    """Floor ≤ limit ≤ cap for each that is governed, and together they fit."""
    floors = 0
    answering = {name: one for name, one in world.guests.items() if not one.hangs(world.time)}
    for name, guest in answering.items():
        floor, cap = bounds(world.rules.share(name), guest.pool(world.time))
        floors += floor
        if guest.governed is not None:
            assert floor <= guest.governed <= cap
    total = world.state.total
    if total is None or any(guest.governed is None for guest in answering.values()):
        return
    limits = sum(guest.limit for guest in answering.values())
    assert limits <= max(total + band(total), floors) + SLACK


SIZES = st.integers(16 * MIB, 8 * GIB)
SHARES = st.builds(
    Share,
    weight=st.integers(1, 1000),
    floor=st.integers(0, GIB),
    cap=st.none() | st.integers(GIB, 8 * GIB),
)
GUESTS = st.builds(
    lambda seed, size, every, limit, yields: Guest(
        steps(seed, 0, size, every), limit, yields=yields
    ),
    seed=st.integers(0, 99),
    size=SIZES,
    every=st.sampled_from([5, 60, 600]),
    limit=st.integers(LEAST, 16 * GIB),
    yields=st.booleans(),
)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    guests=st.lists(st.tuples(GUESTS, SHARES), min_size=1, max_size=5),
    others=st.builds(
        steps,
        seed=st.integers(0, 99),
        least=st.just(GIB),
        most=st.integers(2 * GIB, 15 * GIB),
        seconds=st.sampled_from([3, 47, 600]),
    ),
    disk=st.sampled_from([1, 20, 200, 2000]),
    waits=st.booleans(),
)
def test_floors_caps_and_the_sum_hold(
    guests: list[tuple[Guest, Share]], others: Course, disk: int, waits: bool
) -> None:
    named = {f"vm{number}": replace(guest) for number, (guest, _) in enumerate(guests)}
    shares = {f"vm{number}": share for number, (_, share) in enumerate(guests)}
    pressure = (lambda world: 30.0 if world.available < GIB else 0.0) if waits else (lambda _: None)
    world = World(Rules(RESERVE, shares), named, others=others, disk=disk * MIB, pressure=pressure)
    world.run(600, check)


# --- a shortage ---


def short(disk: float) -> World:
    """Four guests whose pools have filled what there is, and a program that takes 1 GiB at once."""
    guests = {f"vm{number}": Guest(always(4 * GIB)) for number in range(4)}
    world = World(RULES, guests, others=between(4 * GIB, 300, 5 * GIB), disk=disk)
    world.run(299)
    assert world.used > 9 * GIB
    world.decisions.clear()
    return world


def test_gap_is_closed_in_one_step_where_the_disk_can() -> None:
    world = short(1000 * MIB)
    world.run(20)
    (decision,) = (one for one in world.decisions if one.limits)
    assert decision.reason is Reason.SHORT
    gap = RESERVE - decision.available
    assert gap - band(decision.total) <= decision.excess <= gap + band(decision.total) + SLACK
    assert world.available >= RESERVE - band(decision.total)
    assert [one.reason for one in world.decisions] == [Reason.SHORT]


def test_first_page_leaves_within_a_tick() -> None:
    world = short(1000 * MIB)
    world.run(1.0 + 2 * STEP)
    assert world.decisions
    assert world.decisions[0].time - 300 <= 2 * STEP


def test_slow_disk_is_told_and_not_asked_twice() -> None:
    """What is on its way is not taken again: at the end no more has gone than had to."""
    world = short(10 * MIB)
    world.run(400)
    reasons = [one.reason for one in world.decisions]
    assert reasons.count(Reason.SHORT) == 1
    assert reasons.count(Reason.BEHIND) >= 2
    left = [one.excess for one in world.decisions if one.reason is Reason.BEHIND]
    assert left == sorted(left, reverse=True)
    assert RESERVE - 200 * MIB <= world.available <= RESERVE + 200 * MIB


def test_shares_are_right_in_thirty_seconds() -> None:
    """Two guests that have never swapped begin where two others have filled everything."""
    guests = {f"old{number}": Guest(always(16 * GIB)) for number in range(2)}
    guests |= {f"new{number}": Guest(between(0, 601, 16 * GIB)) for number in range(2)}
    rules = Rules(RESERVE, {"new1": Share(weight=300)})
    world = World(rules, guests, disk=1000 * MIB)
    world.run(600)
    assert guests["new0"].used == 0
    world.run(31, check)
    whole = governed_total(world)
    for name, weight in (("old0", 100), ("old1", 100), ("new0", 100), ("new1", 300)):
        assert guests[name].limit / whole == pytest.approx(weight / 600, rel=0.05)


def test_idle_guest_makes_room_for_a_busy_one() -> None:
    guests = {
        "idle": Guest(always(16 * GIB), idle=between(0, 1800, 16 * GIB)),
        "busy": Guest(always(16 * GIB)),
    }
    world = World(RULES, guests, disk=1000 * MIB)
    world.run(1700, check)
    assert guests["idle"].used == pytest.approx(guests["busy"].used, rel=0.05)
    world.run(600, check)
    assert guests["busy"].used > 2.5 * guests["idle"].used


def test_guest_that_swaps_little_is_left_alone() -> None:
    """What its pool does not use has gone to the others, and costs it nothing."""
    guests = {"small": Guest(always(300 * MIB)), "large": Guest(always(64 * GIB))}
    world = World(RULES, guests)
    world.run(600, check)
    assert guests["small"].used == 300 * MIB
    assert guests["large"].used > 9 * GIB


# --- no oscillation ---


def totals_of(world: World, seconds: float) -> list[int]:
    found: list[int] = []
    world.run(seconds, lambda world: found.append(governed_total(world)))
    return found


def waits_when_short(world: World) -> float:
    """The less is left, the more programs wait."""
    return max(0.0, 1.0 - world.available / (1.5 * RESERVE)) * 20


@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(
    level=st.integers(2 * GIB, 14 * GIB),
    noise=st.integers(0, 300 * MIB),
    wants=st.integers(64 * MIB, 8 * GIB),
    disk=st.sampled_from([10, 100, 1000]),
    pressure=st.sampled_from([nothing_waits, waits_when_short]),
)
def test_constant_load_turns_at_most_twice_in_ten_minutes(
    level: int, noise: int, wants: int, disk: int, pressure: Callable[[World], float]
) -> None:
    guests = {f"vm{number}": Guest(always(wants)) for number in range(3)}
    world = World(RULES, guests, others=noisy(level, noise), disk=disk * MIB, pressure=pressure)
    world.run(600)
    assert reversals(totals_of(world, 600), band(world.memory) / 4) <= 2


def test_load_that_comes_back_every_minute_is_learned() -> None:
    """Longer apart than it is waited for at first: twice as long is waited then."""

    def others(time: float) -> float:
        return 5 * GIB if time % 60 < 5 else 4 * GIB

    guests = {f"vm{number}": Guest(always(8 * GIB)) for number in range(3)}
    world = World(RULES, guests, others=others, disk=1000 * MIB)
    world.run(600)
    assert reversals(totals_of(world, 600), band(world.memory) / 4) <= 2


def test_cgroup_at_its_own_limit_takes_nothing() -> None:
    """It raises the host's pressure for ever, and the host has memory."""
    guests = {f"vm{number}": Guest(always(GIB)) for number in range(3)}
    world = World(RULES, guests, pressure=lambda world: 25.0)
    world.run(HOUR)
    assert [one.reason for one in world.decisions] == [Reason.START]


def test_programs_that_wait_near_the_reserve_get_a_quarter() -> None:
    guests = {f"vm{number}": Guest(always(8 * GIB)) for number in range(2)}
    world = World(RULES, guests, disk=1000 * MIB, pressure=waits_when_short)
    world.run(HOUR, check)
    taken = [one for one in world.decisions if one.reason is Reason.PRESSURE]
    assert 1 <= len(taken) <= 6
    assert waits_when_short(world) == 0.0


# --- others that have a loop of their own ---


class Balloons:
    """Proxmox's: above 80 % of the host's memory in use it takes from guests, below it gives back.
    /dev/shm counts as used.  What a guest loses it swaps out, at a third of its size."""

    def __init__(self, guests: int, memory: float, least: float) -> None:
        self.most, self.least = memory, least
        self.memory = [memory] * guests
        self.next_time = 0.0

    def turn(self, world: World, seconds: float) -> None:
        if world.time < self.next_time:
            return
        self.next_time = world.time + 10
        goal = 0.8 * world.memory
        change = (goal - (world.memory - world.available)) / len(self.memory)
        change = max(-100 * MIB, min(100 * MIB, change))
        self.memory = [max(self.least, min(self.most, size + change)) for size in self.memory]

    @property
    def taken(self) -> float:
        return sum(self.most - size for size in self.memory)

    def swapped(self, number: int) -> Course:
        return lambda time: 512 * MIB + (self.most - self.memory[number]) / 3


def ballooned(reserve: int, hours: float = 1) -> tuple[World, Balloons]:
    """64 GiB; eight guests of 6 GiB, and 3 GiB besides."""
    balloons = Balloons(8, 6 * GIB, 2 * GIB)
    guests = {f"vm{number}": Guest(balloons.swapped(number)) for number in range(8)}
    world = World(
        Rules(reserve),
        guests,
        memory=64 * GIB,
        others=lambda time: 3 * GIB + sum(balloons.memory),
        each=balloons.turn,
    )
    world.run(hours * HOUR, check)
    return world, balloons


def test_ballooning_works_against_a_small_reserve() -> None:
    """The trap: pools that the governor lets grow are what the balloons see, and guests pay."""
    _, balloons = ballooned(4 * GIB)
    assert balloons.taken > 4 * GIB


def test_ballooning_rests_with_a_reserve_above_its_threshold() -> None:
    """The recipe: more than 20 % of the host as the reserve.  Nobody goes back and forth."""
    world, balloons = ballooned(14 * GIB)
    assert balloons.taken < 64 * MIB
    found = totals_of(world, 600)
    assert reversals(found, band(world.memory) / 4) <= 2


class Cache:
    """As ZFS has it: it takes what is free up to its most, and counts as used; it gives back only
    where next to nothing is left."""

    def __init__(self, most: float, least: float) -> None:
        self.most, self.least, self.size = most, least, least

    def turn(self, world: World, seconds: float) -> None:
        if world.available < 256 * MIB:
            self.size = max(self.least, self.size - 512 * MIB * seconds)
        elif world.available > 384 * MIB:
            self.size = min(self.most, self.size + 20 * MIB * seconds)


def test_cache_that_counts_as_used_and_pools() -> None:
    """It takes up to its most, and the pools live with the rest, without going back and forth:
    what the guide says of `zfs_arc_max` follows."""
    cache = Cache(8 * GIB, GIB)
    guests = {f"vm{number}": Guest(always(2 * GIB)) for number in range(4)}
    rules = Rules(RESERVE, {name: Share(floor=256 * MIB) for name in guests})
    world = World(rules, guests, others=lambda time: 4 * GIB + cache.size, each=cache.turn)
    world.run(HOUR, check)
    assert cache.size == cache.most
    assert world.available >= RESERVE - band(world.memory)
    assert reversals(totals_of(world, 600), band(world.memory) / 4) <= 2


# --- instances and the governor come and go ---


def test_instance_that_hangs_stops_nobody() -> None:
    guests = {f"vm{number}": Guest(always(8 * GIB)) for number in range(3)}
    guests["vm0"].hangs = lambda time: 600 <= time < 1200
    world = World(RULES, guests, others=between(4 * GIB, 700, 6 * GIB))
    world.run(690)
    before = guests["vm0"].limit
    world.run(310)
    assert guests["vm0"].limit == before
    assert world.available >= RESERVE - band(world.memory)
    world.run(500)
    assert world.available >= RESERVE - band(world.memory)


def test_governor_that_dies_in_the_middle_of_a_shortage() -> None:
    """What it has set holds, and the one that comes after it takes nothing twice."""
    world = short(20 * MIB)
    world.run(3)
    before = {name: guest.governed for name, guest in world.guests.items()}
    world.governs = False
    world.run(20)
    assert {name: guest.governed for name, guest in world.guests.items()} == before
    world.governs = True
    world.restart_governor()
    world.run(200)
    assert [one.reason for one in world.decisions if one.limits] == [Reason.SHORT]
    assert world.available >= RESERVE - band(world.memory)


def test_a_day() -> None:
    """Guests that work by day, one that builds at night, a backup, an evening of games."""
    world = day()
    lowest: list[float] = []
    world.run(24 * HOUR, lambda world: lowest.append(world.available))
    assert min(lowest) > RESERVE - 600 * MIB
    short_for = TICK_SECONDS * sum(available < RESERVE - band(RESERVE) for available in lowest)
    assert short_for < 120


def test_ticks_are_long_where_nothing_is_short() -> None:
    world = World(RULES, {"vm": Guest(always(GIB))})
    world.run(HOUR)
    assert world.ticks <= HOUR / TICK_SECONDS + 1
