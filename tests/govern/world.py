# SPDX-License-Identifier: BSD-3-Clause
"""A host, its guests and its disk as far as the governor meets them; hours of it in seconds.

What is modelled: memory adds up; a pool takes what its guest wants to swap out, up to its limit and
never below the host's reserve; what is above a limit goes to a disk of a given speed; programs wait
for memory where little is left.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from preswapd.govern.policy import (
    TICK_SECONDS,
    Decision,
    Readings,
    Rules,
    State,
    decide,
    tick_seconds,
)
from preswapd.govern.shares import MIB, WANTS, Pool, Share

GIB = 1 << 30
STEP = 0.2
HOUR = 3600.0

# Of the time since the start, in seconds.
Course = Callable[[float], float]


def always(value: float) -> Course:
    return lambda time: value


def between(before: float, at: float, after: float) -> Course:
    return lambda time: before if time < at else after


def steps(seed: int, least: float, most: float, seconds: float) -> Course:
    """Another value from time to time."""

    def value(time: float) -> float:
        return random.Random(f"{seed} {int(time / seconds)}").uniform(least, most)

    return value


@dataclass
class Guest:
    """What it wants to have swapped out, compressed, and how much of that it does not use."""

    wants: Course
    pool_limit: int = 64 * GIB
    idle: Course = field(default_factory=lambda: always(0.0))
    speed: float = 500 * MIB  # bytes a second that it swaps out
    used: float = 0.0
    governed: int | None = None
    hangs: Callable[[float], bool] = lambda time: False
    yields: bool = False

    @property
    def limit(self) -> int:
        return self.pool_limit if self.governed is None else min(self.pool_limit, self.governed)

    def pool(self, time: float) -> Pool:
        idle = int(min(self.idle(time), self.used))
        wants = self.used >= WANTS * self.limit and self.wants(time) > self.used
        return Pool(int(self.used), idle, self.pool_limit, self.governed, wants, self.yields)


@dataclass
class World:
    """`others`: memory of all but the pools."""

    rules: Rules
    guests: dict[str, Guest]
    memory: int = 16 * GIB
    others: Course = field(default_factory=lambda: always(4 * GIB))
    disk: float = 200 * MIB  # bytes of pools that leave in a second
    host_reserve: int = 512 * MIB
    pressure: Callable[["World"], float | None] = lambda world: 0.0
    each: Callable[["World", float], None] = lambda world, seconds: None
    governs: bool = True
    seconds: float = STEP  # of one step
    held: float = 0.0  # what the others have of what they want
    time: float = 0.0
    next_tick: float = 0.0
    state: State = field(default_factory=State)
    decisions: list[Decision] = field(default_factory=list)
    ticks: int = 0

    @property
    def used(self) -> float:
        return sum(guest.used for guest in self.guests.values())

    @property
    def available(self) -> int:
        return max(0, int(self.memory - self.held - self.used))

    def step(self) -> None:
        self.time += self.seconds
        self.each(self, self.seconds)
        # Nobody gets what is not there, but waits for it.
        self.held = min(self.others(self.time), self.memory - self.used)
        self.swap_out()
        self.to_disk()
        if self.governs and self.time >= self.next_tick:
            self.tick()

    def swap_out(self) -> None:
        for guest in self.guests.values():
            wanted = min(guest.wants(self.time), guest.limit)
            if guest.used < wanted:
                left = max(0, self.available - self.host_reserve)
                guest.used += min(wanted - guest.used, guest.speed * self.seconds, left)
            guest.used = min(guest.used, max(guest.wants(self.time), 0.0))

    def to_disk(self) -> None:
        """All instances write at once."""
        excess = {
            name: guest.used - guest.limit
            for name, guest in self.guests.items()
            if guest.used > guest.limit
        }
        moved = min(self.disk * self.seconds, sum(excess.values()))
        for name, over in excess.items():
            self.guests[name].used -= moved * over / sum(excess.values())

    def seen(self) -> Readings:
        pools = {
            name: guest.pool(self.time)
            for name, guest in self.guests.items()
            if not guest.hangs(self.time)
        }
        return Readings(self.time, self.available, self.pressure(self), pools)

    def tick(self) -> None:
        self.ticks += 1
        seen = self.seen()
        self.state, made = decide(self.rules, self.state, seen)
        for decision in made:
            self.decisions.append(decision)
            for name, limit in decision.limits.items():
                self.guests[name].governed = limit
        self.next_tick = self.time + tick_seconds(self.rules, seen.available)

    def run(self, seconds: float, watch: Callable[["World"], None] = lambda world: None) -> None:
        end = self.time + seconds
        while self.time < end:
            self.step()
            watch(self)

    def restart_governor(self) -> None:
        self.state = State()


def reversals(totals: Sequence[float], worth: float) -> int:
    """How often what went up goes down, or the other way round, by more than is worth."""
    turns, way, edge = 0, 0, totals[0]
    for total in totals:
        new = 1 if total > edge else -1
        if way != new and abs(total - edge) > worth:
            turns += way not in (0, new)
            way, edge = new, total
        elif way * (total - edge) > 0:
            edge = total
    return turns


def limits_of(world: World) -> dict[str, int]:
    return {name: guest.limit for name, guest in world.guests.items()}


def governed_total(world: World) -> int:
    return sum(limits_of(world).values())


def rules_for(reserve: int, **shares: object) -> Rules:
    return replace(Rules(reserve), shares=shares)  # type: ignore[arg-type]


def nothing_waits(world: World) -> float:
    return 0.0


def day() -> World:
    """A host of 32 GiB with four guests; what the plot in the guide shows."""

    def office(time: float) -> float:
        hour = time / HOUR % 24
        return GIB * (1 + 5 * max(0.0, math.sin((hour - 7) / 12 * math.pi)))

    def build(time: float) -> float:
        return GIB * (6 if 1 <= time / HOUR % 24 < 4 else 1)

    def backup(time: float) -> float:
        """Twice a day, each within two minutes."""
        taken: float = 18 * GIB
        for begins, ends, size in ((11, 12.5, 4 * GIB), (21, 22.5, 6 * GIB)):
            inside = min(time / HOUR - begins, ends - time / HOUR) * HOUR
            taken += size * max(0.0, min(1.0, inside / 120))
        return taken

    guests = {
        "office": Guest(office),
        "build": Guest(build, idle=lambda time: 0 if 1 <= time / HOUR % 24 < 5 else GIB / 2),
        "web": Guest(steps(1, 0.5 * GIB, 2 * GIB, 1800)),
        "idle": Guest(always(3 * GIB), idle=between(0, 1800, 3 * GIB)),
    }
    shares = {"web": Share(weight=200, floor=512 * MIB)}
    return World(
        Rules(2 * GIB, shares),
        guests,
        memory=32 * GIB,
        others=backup,
        pressure=nothing_waits,
        seconds=TICK_SECONDS,
    )
