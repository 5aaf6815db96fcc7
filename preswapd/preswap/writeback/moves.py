# SPDX-License-Identifier: BSD-3-Clause
"""Pages move from tmem to disk: which go first, how many at once, and when a shrink gives up.

The kernel's preswap_shrink moved pages into the guest's own memory; a host cannot, so here it is
writeback.  Coldest first and large writes exclude each other page by page, so victims are extents
of 256 pages, by when their pages were used last, on average; where all must go that may, simply by
offset.
"""

import heapq
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from preswapd.api.messages import ShrinkProgress, ShrinkResult
from preswapd.preswap.device._device import EXTENT_PAGES, Device
from preswapd.preswap.files.durable import NO_ROOM
from preswapd.preswap.writeback.goals import Goal
from preswapd.preswap.writeback.movers import MOVES_AT_ONCE, Move, Movers
from preswapd.tmem import Host

# Guests may fill tmem up to the target while pages leave it, so a round can end above it.
MOST_ROUNDS = 100
# A disk with a bad spot takes what lies elsewhere; one that has failed so often takes nothing.
MOST_FAILURES = 8
# And one that is full or fails is not asked at every turn.
RETRY_SECONDS = 60.0
# A search keeps the interpreter lock, which guests' requests need, to its end.
SEARCHED_PAGES = 1 << 20
INTERRUPTED = "interrupted"

# A device, one of its extents, and how many of that extent's pages are in tmem at most.
Victim = tuple[Device, int, int]


class Writeback:
    """Moves pages to disk until the goal is met; run again it goes on."""

    def __init__(
        self,
        host: Host,
        goal: Goal,
        progress: Callable[[ShrinkProgress], None],
        cancelled: Callable[[], bool],
    ) -> None:
        self.host = host
        self.goal = goal
        self.progress = progress
        self.cancelled = cancelled
        self.moved = 0
        self.lost = 0
        self.failures = 0
        self.failure: str | None = None

    def run(self) -> ShrinkResult:
        reason = "guests put pages back as fast as they were moved"
        self.forget_failures()
        complete = has_rested = False
        with Movers() as movers:
            for _ in range(MOST_ROUNDS):
                self.goal.aim()
                if self.goal.is_met():
                    complete = True
                    break
                before, failed = self.moved + self.lost, self.failures
                stopped = self.round(movers)
                if stopped is not None:
                    reason = stopped
                    break
                if self.moved + self.lost > before or self.goal.is_met():
                    has_rested = False
                elif self.failures > failed or has_rested:
                    reason = self.failure or "no page could be moved"
                    break
                else:
                    # The goal may have been met while the round ran, so that nothing had to move,
                    # and missed since, as a client has come: once more, measured anew.
                    has_rested = True
        complete = complete or self.goal.is_met()
        left = self.goal.left()
        return ShrinkResult(self.moved, left, self.lost, complete, None if complete else reason)

    def forget_failures(self) -> None:
        self.failures, self.failure = 0, None

    def round(self, movers: Movers) -> str | None:
        """Goes once through the victims.  Returns why the shrink must not go on, or None."""
        under_way: deque[Move] = deque()
        stopped = None
        for device, extent, pages in self.victims():
            # A disk that has failed is not asked for two extents at once.
            while len(under_way) >= (1 if self.failures else MOVES_AT_ONCE) and not stopped:
                stopped = self.finish(under_way.popleft())
            # Of what is under way some pages have left already: towards the end that must be exact,
            # or pages of a hotter extent go instead.
            while (excess := self.excess(under_way)) < pages and under_way and not stopped:
                stopped = self.finish(under_way.popleft())
            if self.cancelled():
                stopped = stopped or INTERRUPTED
            if stopped or excess <= 0:
                break
            most = min(excess, pages)
            move = Move(self.goal.move, device, extent, most)
            under_way.append(movers.begin(move))
        while under_way:
            stopped = self.finish(under_way.popleft()) or stopped
        return stopped

    def excess(self, under_way: Iterable[Move]) -> int:
        """Pages that may go, and that no move under way may take."""
        return self.goal.above() - sum(move.most for move in under_way)

    def finish(self, move: Move) -> str | None:
        """Waits for its end.  Returns why the shrink must not go on, or None."""
        try:
            moved, lost, number = move.result()
        except OSError:
            return None  # the device is being removed, and its pages with it
        self.moved += moved
        self.lost += lost
        # Empty slabs go back at once: who shrinks wants the memory now.
        self.host.give_back()
        self.progress(ShrinkProgress(self.moved, self.goal.left(), self.goal.target()))
        if number:
            self.failures += 1
            self.failure = f"{move.device.name}: {os.strerror(number)}"
            if number in NO_ROOM or self.failures == MOST_FAILURES:
                return self.failure
        return None

    def victims(self) -> Iterator[Victim]:
        devices = self.goal.devices()
        return by_offset(devices) if self.goal.takes_all() else by_age(devices)


def by_offset(devices: Sequence[Device]) -> Iterator[Victim]:
    for device in devices:
        at = 0
        while at < device.pages:
            found = device.preswap_map.find(1, at, at + SEARCHED_PAGES)
            if found < 0:
                at += SEARCHED_PAGES
                continue
            yield device, found // EXTENT_PAGES, EXTENT_PAGES
            at = (found // EXTENT_PAGES + 1) * EXTENT_PAGES


def by_age(devices: Sequence[Device]) -> Iterator[Victim]:
    merged = heapq.merge(*(aged(number, device) for number, device in enumerate(devices)))
    for _, number, extent, pages in merged:
        yield devices[number], extent, pages


def aged(number: int, device: Device) -> Iterator[tuple[tuple[float, float], int, int, int]]:
    """(when it was used, number of the device, extent, its pages), the coldest first."""
    try:
        extents = device.coldest()
    except OSError:
        return  # it is being removed
    for i in range(len(extents)):
        used, pages, extent = extents[i]
        yield used, number, extent, pages
