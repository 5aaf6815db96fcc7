# SPDX-License-Identifier: BSD-3-Clause
"""How far a balloon may go, step by step, and when a parked guest is to be woken.

Numbers alone, without clock, QEMU or server: what was seen goes in, and what is to be done comes
out.  Sizes are bytes of the guest's memory, swap traffic is pages of all its devices.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

MIB = 1 << 20
PAGE = 4096

# A guest that reads so many pages a second wants its memory: it thrashes, or has woken up.
MOST_READS = 100.0
# What is seen is judged over so long: a burst of a tenth of a second is no thrashing.
WINDOW_SECONDS = 2.0
# So long it may read that much after a step: what it still uses was swapped out, and comes back.
PATIENCE_SECONDS = 10.0
# So long it may give nothing while it swaps out, as its disk is slow.
SLOW_SECONDS = 120.0
# Of a balloon that has arrived; QEMU's count follows the guest's in such steps.
SLACK = MIB
# Swapped out in PATIENCE_SECONDS, it is at work.
FEW_PAGES = 256

STEPS = 16
SMALLEST_STEP = 16 * MIB
SMALLEST_FLOOR = 128 * MIB
FLOOR_PART = 7


class Action(Enum):
    """What is to be done; all but the first two end it, the last three before the floor."""

    WAIT = "wait"
    STEP = "step"
    DONE = "done"
    THRASHES = "thrashes"
    STUCK = "stuck"
    FULL = "full"


class Rules(NamedTuple):
    floor: int
    step: int
    most_reads: float = MOST_READS
    window: float = WINDOW_SECONDS
    patience: float = PATIENCE_SECONDS
    slow: float = SLOW_SECONDS


class Seen(NamedTuple):
    """One look."""

    time: float  # seconds, that only go forward
    has: int  # what the guest has now, by its balloon
    swapped_in: int  # pages, counted from some start
    swapped_out: int
    room: int  # what may still be swapped out


@dataclass(frozen=True)
class State:
    """`target` is what QEMU was told last."""

    target: int
    quiet: int  # the lowest target at which the guest did not thrash
    mark: Seen  # where the window began that is looked at now
    moved: Seen  # when the guest last gave something
    thrashes_since: float | None = None


def default_floor(whole: int) -> int:
    """A seventh of its memory; in less than 128 MiB no guest of today lives."""
    return min(whole, max(SMALLEST_FLOOR, whole // FLOOR_PART // MIB * MIB))


def rules_for(has: int, floor: int) -> Rules:
    return Rules(floor, max(SMALLEST_STEP, (has - floor) // STEPS // MIB * MIB))


def begin(rules: Rules, seen: Seen) -> tuple[State, Action]:
    """The first step; DONE where it has no more than the floor already."""
    state = State(seen.has, seen.has, seen, seen)
    if seen.has <= rules.floor + SLACK:
        return state, Action.DONE
    return next_step(rules, state, seen)


def decide(rules: Rules, state: State, seen: Seen) -> tuple[State, Action]:
    """After a look: wherever it ends, `target` of the new state is what the guest is to have."""
    if state.moved.has - seen.has >= SLACK:
        state = replace(state, moved=seen)
    seconds = seen.time - state.mark.time
    if seconds < rules.window:
        return state, Action.WAIT
    begun, reads = state.mark, (seen.swapped_in - state.mark.swapped_in) / seconds
    state = replace(state, mark=seen)
    if reads >= rules.most_reads:
        since = begun.time if state.thrashes_since is None else state.thrashes_since
        state = replace(state, thrashes_since=since)
        if seen.time - since < rules.patience:
            return state, Action.WAIT
        return replace(state, target=state.quiet), Action.THRASHES
    state = replace(state, thrashes_since=None)
    if max(begun.has, seen.has) <= state.target + SLACK:  # the whole window
        state = replace(state, quiet=state.target)
        if state.target <= rules.floor:
            return state, Action.DONE
        return next_step(rules, state, seen)
    if gives_no_more(rules, state, seen):
        return replace(state, target=max(seen.has, state.target)), Action.STUCK
    return state, Action.WAIT


def after_absence(state: State, seen: Seen) -> State:
    """There was no server for a while: the guest could not swap, and nothing says what it did."""
    return replace(state, mark=seen, moved=seen, thrashes_since=None)


def next_step(rules: Rules, state: State, seen: Seen) -> tuple[State, Action]:
    target = max(rules.floor, state.target - rules.step)
    if seen.room < state.target - target:
        return state, Action.FULL
    return replace(state, target=target, mark=seen, moved=seen), Action.STEP


def gives_no_more(rules: Rules, state: State, seen: Seen) -> bool:
    since = seen.time - state.moved.time
    works = seen.swapped_out - state.moved.swapped_out >= FEW_PAGES
    return since >= (rules.slow if works else rules.patience)


class Wake(NamedTuple):
    """Whether a parked guest wants its memory back: `since` begins the window."""

    since: Seen

    def look(self, seen: Seen) -> tuple["Wake", bool]:
        seconds = seen.time - self.since.time
        if seconds < WINDOW_SECONDS:
            return self, False
        wakes = (seen.swapped_in - self.since.swapped_in) / seconds >= MOST_READS
        return Wake(seen), wakes


def may_be_swapped(has: int, floor: int, available: int | None) -> int:
    """The most that the guest swaps out until it has no more than the floor; without its word of
    what is available to it without swapping, all that is taken."""
    return max(0, has - floor - (available or 0))
