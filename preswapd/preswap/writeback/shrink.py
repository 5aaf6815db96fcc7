# SPDX-License-Identifier: BSD-3-Clause
"""The shrink of an instance: one at a time, and its state from the beginning to the end.

What an operator asks for is refused while another such is under way or waits.  What a lowered limit
needs (a fit) is never refused and stands in nobody's way: whatever comes later follows it.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace

from preswapd.api.messages import ShrinkProgress, ShrinkResult, ShrinkStatus
from preswapd.api.settings import VM_PRESWAP
from preswapd.errors import RefusedError, with_place
from preswapd.log import ERROR, INFO, WARNING, Log
from preswapd.preswap.writeback.goals import Goal
from preswapd.preswap.writeback.moves import INTERRUPTED, Writeback
from preswapd.tmem import Host
from preswapd.units import format_duration


class Shrink:
    """One shrink; `ended` is set when there is a result or an error."""

    def __init__(
        self,
        host: Host,
        goal: Goal,
        watch: Callable[[ShrinkProgress], None],
        withdraw: Callable[["Shrink"], None],
    ) -> None:
        self.goal = goal
        self.watch = watch
        self.withdraw = withdraw
        self.progress = ShrinkProgress(0, goal.left(), goal.target())
        self.result: ShrinkResult | None = None
        self.error: Exception | None = None
        self.stopped = threading.Event()
        self.ended = threading.Event()
        self.ended_at = 0.0  # time.monotonic()
        self.again = False
        self.work = Writeback(host, goal, self.note, self.stopped.is_set)

    def note(self, progress: ShrinkProgress) -> None:
        self.progress = progress
        self.watch(progress)

    def stop(self) -> None:
        """It ends between two writes, which is soon; what has moved has moved.

        One that has not begun ends at once.
        """
        self.stopped.set()
        self.withdraw(self)

    def wait(self) -> ShrinkResult:
        """Its result, once it has ended; what was raised in it is raised here."""
        self.ended.wait()
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    @property
    def has_ended_short(self) -> bool:
        """It has ended, and has not met its goal."""
        is_complete = self.result is not None and self.result.complete
        return self.ended.is_set() and not is_complete

    @property
    def has_failed(self) -> bool:
        """The same, and nobody has stopped it."""
        return self.has_ended_short and not self.stopped.is_set()


class Shrinks:
    """Those of one instance: the one under way, or the last one, and those that follow it."""

    def __init__(self, host: Host, log: Log) -> None:
        self.host = host
        self.log = log
        self.last: Shrink | None = None
        self.waiting: list[Shrink] = []
        self.beginning = threading.Lock()

    def under_way(self) -> Shrink | None:
        last = self.last
        return None if last is None or last.ended.is_set() else last

    def begin(
        self, goal: Goal, watch: Callable[[ShrinkProgress], None] = lambda progress: None
    ) -> Shrink:
        """Now, or after the fits that were there before it.  `watch` is called after each move.

        RefusedError while another that was asked for has not ended.
        """
        with self.beginning:
            for other in self.unended():
                if other.goal.setting is None:
                    raise RefusedError(f"a {other.goal.word} is under way already")
            shrink = self.new(goal, watch)
            self.start_or_queue(shrink)
            return shrink

    def fit(self, goal: Goal) -> Shrink | None:
        """For a limit: begun now, or when its turn comes; None when the limit is kept already.

        One for the same setting that has not ended yet gets the new target.
        """
        with self.beginning:
            if goal.is_met():
                return None
            if found := self.fit_of(goal):
                found.again = True
                return found
            shrink = self.new(goal, lambda progress: None)
            # It has failed then, and is tried again later like others that have.
            with suppress(RuntimeError):
                self.start_or_queue(shrink)
            return shrink

    def new(self, goal: Goal, watch: Callable[[ShrinkProgress], None]) -> Shrink:
        return Shrink(self.host, goal, watch, self.withdraw)

    def unended(self) -> list[Shrink]:
        under_way = self.under_way()
        return [*([under_way] if under_way else []), *self.waiting]

    def fit_of(self, goal: Goal) -> Shrink | None:
        """The one for the same limit that has not ended, and that nobody has stopped."""
        for shrink in self.unended():
            is_same = (shrink.goal.setting, shrink.goal.subject) == (goal.setting, goal.subject)
            if is_same and not shrink.stopped.is_set():
                return shrink
        return None

    def start_or_queue(self, shrink: Shrink) -> None:
        if self.under_way():
            self.waiting.append(shrink)
        else:
            self.start(shrink)

    def start(self, shrink: Shrink) -> None:
        """RuntimeError: there is no thread for it, and it has ended."""
        thread = threading.Thread(target=self.go_on, args=(shrink,), name="shrink", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            shrink.error = error
            self.end(shrink)
            raise
        self.last = shrink

    def stop(self) -> None:
        """The one under way; RefusedError without one."""
        # One that is just beginning moves pages before it is known here.
        with self.beginning:
            shrink = self.under_way()
        if shrink is None:
            raise RefusedError("no shrink is under way")
        shrink.stop()

    def withdraw(self, shrink: Shrink) -> None:
        """One that waits for its turn has ended now; others end by themselves."""
        with self.beginning:
            if shrink in self.waiting:
                self.waiting.remove(shrink)
                left, is_met = shrink.goal.left(), shrink.goal.is_met()
                shrink.result = ShrinkResult(0, left, 0, is_met, None if is_met else INTERRUPTED)
                self.end(shrink)

    def status(self) -> ShrinkStatus:
        # At once: between two looks one may have ended, and the next begun.
        with self.beginning:
            last = self.last
            waiting = [setting_of(shrink.goal) for shrink in self.waiting]
        if last is None:
            return ShrinkStatus(running=False)
        # What its thread has found so far is not how it ended: its memory is still to go back.
        has_ended = last.ended.is_set()
        return ShrinkStatus(
            running=not has_ended,
            **asdict(last.progress),
            device=last.goal.device,
            result=asdict(last.result) if has_ended and last.result is not None else None,
            error=str(last.error) if has_ended and last.error is not None else None,
            setting=last.goal.setting,
            waiting=waiting,
            sync=last.goal.word == "sync",
            idle=last.goal.idle,
        )

    # --- in its thread ---

    def go_on(self, shrink: Shrink | None) -> None:
        """Carries it out, and then those that were asked for in the meantime."""
        while shrink is not None:
            shrink.result = shrink.error = None
            try:
                self.carry_out(shrink)
            except Exception as error:
                shrink.error = error
                self.log(ERROR, f"{name_of(shrink.goal)} failed: {with_place(error)}")
            shrink = self.following(shrink)

    def following(self, shrink: Shrink) -> Shrink | None:
        """What comes next: the same one, where its limit was lowered at its very end."""
        with self.beginning:
            if shrink.again and not shrink.stopped.is_set():
                shrink.again = False
                return shrink
            self.end(shrink)
            if not self.waiting:
                return None
            self.last = self.waiting.pop(0)
            return self.last

    def end(self, shrink: Shrink) -> None:
        shrink.ended_at = time.monotonic()
        shrink.ended.set()

    def carry_out(self, shrink: Shrink) -> None:
        goal, begun = shrink.goal, time.monotonic()
        goal.aim()
        before = shrink.work.moved
        is_event = not goal.is_met()
        if is_event:
            pages = f"from {goal.left()} to {goal.target()} pages"
            self.log(INFO, f"{name_of(goal)} {pages} begins")
        with goal.held_down():
            shrink.result = concluded(goal, shrink.work.run())
        self.host.maintain(all=True)
        if is_event or shrink.result.moved > before or not shrink.result.complete:
            self.tell_ended(shrink.goal, shrink.result, time.monotonic() - begun)

    def tell_ended(self, goal: Goal, result: ShrinkResult, seconds: float) -> None:
        what = goal.word if goal.setting is None else name_of(goal)
        lost = f", {result.lost} lost" if result.lost else ""
        figures = f"{result.moved} pages moved to disk{lost}, {result.left} left in memory"
        if result.complete:
            self.log(INFO, f"{what} ended after {seconds:.1f} s: {figures}")
        else:
            self.log(WARNING, f"{what} stopped after {seconds:.1f} s ({result.reason}): {figures}")


def concluded(goal: Goal, result: ShrinkResult) -> ShrinkResult:
    failure = goal.conclude(result.complete)
    if failure is None:
        return result
    return replace(result, complete=False, reason=result.reason or failure)


def name_of(goal: Goal) -> str:
    """As the log calls it."""
    if goal.setting is not None:
        return f"shrink to fit {goal.setting}"
    if goal.idle is None:
        return goal.word if goal.device is None else f"{goal.word} of {goal.device}"
    where = "" if goal.device is None else f" in {goal.device}"
    return f"{goal.word} of what was idle for {format_duration(goal.idle)}{where}"


def setting_of(goal: Goal) -> str:
    """The key by which an operator would set it: that of a shrink is the number of pages."""
    if goal.setting is not None:
        return goal.setting
    return VM_PRESWAP if goal.device is None else f"{VM_PRESWAP}.{goal.device}"
