# SPDX-License-Identifier: BSD-3-Clause
"""What the governor decides: from what it remembers and what it sees, what it does.

A pure function: no clock, no files, no sockets.  All of it rests on one figure, the *room*: what
the pools take now, and what the host has available beyond the reserve.  Pages that the pools move
to disk do not change it, so that nothing is taken back twice, however slow the disk is; only what
other programs take and give back does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from preswapd.govern.shares import MIB, Pool, Share, bounds, divide

TICK_SECONDS = 2.0
# Within twice the reserve.
SHORT_TICK_SECONDS = 0.2
# Percent of the time in which some process waits for memory, and for how many ticks in a row.
PRESSURE, PRESSED_TICKS = 0.1, 3
PRESSURE_TAKES = 0.25
# What pressure has taken is not given again for so long: it would only come back.
PRESSURE_HOLDS = 600.0
# Nothing was taken for so long: limits grow again, step by step.  Where what was given is taken
# back at once, the next wait is twice as long.
QUIET_SECONDS, LONGEST_QUIET = 30.0, 480.0
FORGET_SECONDS = 600.0
GROWTH = 1 / 8
DEAD_BAND, DEAD_BAND_BYTES = 0.01, 16 * MIB
# A disk that has brought pools within their limits by then is not worth a line.
BEHIND_SECONDS = 10.0
TELL_AGAIN_SECONDS = 60.0


class Reason(Enum):
    START = "start"  # the first look, or an instance that was not governed yet
    SHORT = "short"  # less is available than the reserve
    NARROW = "narrow"  # other programs have taken what the pools did not use
    PRESSURE = "pressure"  # programs wait for memory, near the reserve
    GROWTH = "growth"  # it has been quiet
    SHARES = "shares"  # as much for all, but one needs more and another less
    BEHIND = "behind"  # the disk is slower than what is to go; nothing is set
    FLOORS = "floors"  # the floors are more than there is; nothing more can be taken


TAKING = (Reason.SHORT, Reason.NARROW, Reason.PRESSURE)


@dataclass(frozen=True)
class Rules:
    """What the operator wants."""

    reserve: int
    shares: Mapping[str, Share] = field(default_factory=dict)
    others: Share = field(default_factory=Share)  # of an instance that is not named

    def share(self, name: str) -> Share:
        return self.shares.get(name, self.others)


@dataclass(frozen=True)
class Readings:
    """What is seen at one moment; only instances that answer are in it."""

    time: float  # seconds on a clock that only goes forward
    available: int
    pressure: float | None  # percent; None: this kernel does not say
    pools: Mapping[str, Pool]

    @property
    def used(self) -> int:
        return sum(pool.used for pool in self.pools.values())

    @property
    def excess(self) -> int:
        return sum(pool.excess for pool in self.pools.values())


@dataclass(frozen=True)
class State:
    """What is remembered from one tick to the next."""

    total: int | None = None  # what the pools may take together
    used: Mapping[str, int] = field(default_factory=dict)  # by each, when it was seen last
    lows: tuple[tuple[float, int], ...] = ()  # (time, room): the lowest since each, rising
    quiet: float = QUIET_SECONDS
    cut_at: float = float("-inf")
    grown_at: float = float("-inf")
    pressed: int = 0  # ticks in a row
    held_until: float = float("-inf")  # because of pressure
    behind_since: float | None = None
    told: tuple[tuple[Reason, float], ...] = ()  # when what repeats was told last


@dataclass(frozen=True)
class Decision:
    """What is done and why, with the numbers that led to it."""

    time: float
    reason: Reason
    available: int
    reserve: int
    pressure: float | None
    used: int
    room: int
    total: int
    excess: int  # to go, once this is set, to disk but for what is dropped
    limits: Mapping[str, int]  # of those that change
    before: Mapping[str, int | None]  # of the same
    dropped: int = 0  # of `excess`, what is cached of images


def decide(rules: Rules, state: State, seen: Readings) -> tuple[State, Sequence[Decision]]:
    """One tick: what is remembered for the next one, and what is to be done, if anything."""
    room = room_of(rules, seen, seen.available)
    state = looked_back(come_and_gone(state, seen), seen.time, room)
    state, reason = total_of(rules, state, seen, room)
    assert state.total is not None
    shares = {name: rules.share(name) for name in seen.pools}
    limits = divide(state.total, shares, seen.pools)
    changed = {name: limit for name, limit in limits.items() if limit != seen.pools[name].governed}
    decisions = []
    if changed and is_worth(state.total, seen, changed):
        new = any(seen.pools[name].governed is None for name in changed)
        why = Reason.START if new and reason not in TAKING else reason or Reason.SHARES
        decisions.append(told(rules, state, seen, room, why, changed))
    return warned(rules, state, seen, room, limits, decisions)


def room_of(rules: Rules, seen: Readings, available: int) -> int:
    return max(0, seen.used + available - rules.reserve)


def come_and_gone(state: State, seen: Readings) -> State:
    """What a pool takes that nobody answers for is no pool's any more, and the other way round.

    So an instance that restarts, or hangs for a while, moves no page of its own or of others.
    """
    used = {name: pool.used for name, pool in seen.pools.items()}
    if state.total is None:
        return replace(state, used=used)
    come = sum(size for name, size in used.items() if name not in state.used)
    gone = sum(size for name, size in state.used.items() if name not in used)
    more = come - gone
    lows = tuple((time, max(0, low + more)) for time, low in state.lows)
    return replace(state, used=used, total=max(0, state.total + more), lows=lows)


def most(rules: Rules, seen: Readings) -> int:
    return sum(bounds(rules.share(name), pool)[1] for name, pool in seen.pools.items())


def is_near(rules: Rules, available: int) -> bool:
    return available < 2 * rules.reserve


def tick_seconds(rules: Rules, available: int) -> float:
    return SHORT_TICK_SECONDS if is_near(rules, available) else TICK_SECONDS


# --- how much for all of them ---


def total_of(rules: Rules, state: State, seen: Readings, room: int) -> tuple[State, Reason | None]:
    """What the pools may take together from now on, and why, where that has changed."""
    now, total = seen.time, state.total
    if total is None:
        return replace(state, total=first(rules, seen, room), cut_at=now), Reason.START
    counted = min(total, most(rules, seen))
    if now - state.cut_at >= FORGET_SECONDS:
        state = replace(state, quiet=QUIET_SECONDS)
    pressed = state.pressed + 1 if is_pressed(rules, seen) else 0
    state = replace(state, pressed=pressed)
    if is_too_much(rules, state, seen, room):
        reason = Reason.SHORT if seen.available < rules.reserve else Reason.NARROW
        return cut(state, now, room), reason
    # While pages go to disk the pools wait for it, and programs for the disk.
    if pressed >= PRESSED_TICKS and seen.excess <= band(counted):
        wanted = int(seen.used * (1 - PRESSURE_TAKES))
        if wanted < counted:
            state = replace(cut(state, now, wanted), held_until=now + PRESSURE_HOLDS, pressed=0)
            return state, Reason.PRESSURE
    return grown(state, now, most(rules, seen))


def is_too_much(rules: Rules, state: State, seen: Readings, room: int) -> bool:
    """What the pools may take; more than all may take together is nothing to reckon with."""
    counted = min(state.total or 0, most(rules, seen))
    return room < counted - band(counted)


def first(rules: Rules, seen: Readings, room: int) -> int:
    """A governor that is started again goes on where the one before it was."""
    before = [pool.governed for pool in seen.pools.values()]
    known = [limit for limit in before if limit is not None]
    total, whole = sum(known), most(rules, seen)
    if len(known) < len(before) or total >= whole - band(whole):
        return room
    return min(room, total)


def cut(state: State, now: float, total: int) -> State:
    """What was given since the last time was too much: the next wait is longer."""
    again = state.grown_at > state.cut_at and now - state.grown_at < FORGET_SECONDS
    quiet = min(2 * state.quiet, LONGEST_QUIET) if again else state.quiet
    return replace(state, total=total, cut_at=now, quiet=quiet)


def grown(state: State, now: float, whole: int) -> tuple[State, Reason | None]:
    """An eighth of what there has been room for all the time."""
    assert state.total is not None
    if now - state.cut_at < state.quiet or now < state.held_until:
        return state, None
    if now - state.grown_at < TICK_SECONDS:
        return state, None
    gap = min(state.lows[0][1], whole) - state.total
    if gap < 2 * band(state.total):
        return state, None
    step = max(int(gap * GROWTH), band(state.total))
    return replace(state, total=state.total + step, grown_at=now), Reason.GROWTH


def looked_back(state: State, now: float, room: int) -> State:
    """The least room of the quiet time, without what is older: one dip is not forgotten at once."""
    # What came before a lower one will never be the lowest again.
    since = now - state.quiet
    kept = [(time, low) for time, low in state.lows if low < room and time > since]
    return replace(state, lows=(*kept, (now, room)))


def is_pressed(rules: Rules, seen: Readings) -> bool:
    """Elsewhere it says nothing of the host: a cgroup at its own limit waits too."""
    near = is_near(rules, seen.available)
    return near and seen.pressure is not None and seen.pressure > PRESSURE


def band(size: int) -> int:
    """Differences that are not worth a change."""
    return max(int(size * DEAD_BAND), DEAD_BAND_BYTES)


def is_worth(total: int, seen: Readings, changed: Mapping[str, int]) -> bool:
    """One of them is, or all together may take too much."""
    before = {name: seen.pools[name].governed for name in changed}
    if sum(pool.limit for pool in seen.pools.values()) > total + band(total):
        return True
    return any(
        limit is None or abs(changed[name] - limit) >= band(limit) for name, limit in before.items()
    )


# --- what is told ---


def told(
    rules: Rules,
    state: State,
    seen: Readings,
    room: int,
    reason: Reason,
    changed: Mapping[str, int],
) -> Decision:
    assert state.total is not None
    pools = {
        name: replace(pool, governed=changed.get(name, pool.governed))
        for name, pool in seen.pools.items()
    }
    return Decision(
        seen.time,
        reason,
        seen.available,
        rules.reserve,
        seen.pressure,
        seen.used,
        room,
        state.total,
        sum(pool.excess for pool in pools.values()),
        dict(changed),
        {name: seen.pools[name].governed for name in changed},
        sum(pool.dropped for pool in pools.values()),
    )


def warned(
    rules: Rules,
    state: State,
    seen: Readings,
    room: int,
    limits: Mapping[str, int],
    decisions: list[Decision],
) -> tuple[State, Sequence[Decision]]:
    """Where what was decided does not help, or not yet, that is told now and then."""
    total = state.total or 0
    is_short = seen.available < rules.reserve
    behind = is_short and seen.excess > band(total)
    since = (seen.time if state.behind_since is None else state.behind_since) if behind else None
    state = replace(state, behind_since=since)
    floors = is_short and bool(limits) and sum(limits.values()) > total + band(total)
    late = since is not None and seen.time - since >= BEHIND_SECONDS
    for reason, is_so in ((Reason.BEHIND, late), (Reason.FLOORS, floors)):
        last = dict(state.told).get(reason)
        if is_so and (last is None or seen.time - last >= TELL_AGAIN_SECONDS):
            state = replace(state, told=tuple({**dict(state.told), reason: seen.time}.items()))
            decisions.append(told(rules, state, seen, room, reason, {}))
    return state, decisions
