# SPDX-License-Identifier: BSD-3-Clause
"""Random histories of the one shrink: asked for, stopped, failed, and those that follow, against a
model of what is under way and what waits."""

import queue
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from preswapd.api.messages import ShrinkResult
from preswapd.errors import RefusedError
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback.moves import Writeback
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.running import Running
from tests.running import PATIENCE

PAGES = 16
UNLIMITED = 1 << 60
NAMES = st.sampled_from(["g1", "g2"])
NUMBERS = st.integers(0, PAGES)


@dataclass
class Modelled:
    """A shrink as the model knows it, beside the real one."""

    real: Shrink
    name: str
    pages: int | None  # None: a fit, to whatever the quota is by then
    stopped: bool = False
    again: bool = False


class Held:
    """Each run of a shrink waits for the word how it is to go."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.words: queue.Queue[str] = queue.Queue()
        self.run = Writeback.run

    def __call__(self, work: Writeback) -> ShrinkResult:
        self.reached.release()
        if self.words.get(timeout=PATIENCE) == "fail":
            left = work.goal.left()
            return ShrinkResult(0, left, 0, complete=work.goal.is_met(), reason="the disk is full")
        return self.run(work)


class ShrinksAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        tmp = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="preswapd-test-"))
        self.running = self.stack.enter_context(Running(Path(tmp)))
        self.running.paths.runtime_dir.mkdir()
        size = (PAGES + 1) * PAGE
        self.instance = self.running.open(DeviceSpec("g1", size), DeviceSpec("g2", size))
        self.held = held = Held()
        self.stack.enter_context(patch.object(Writeback, "run", lambda work: held(work)))
        self.stack.enter_context(patch("preswapd.preswap.writeback.fitting.RETRY_SECONDS", 0.0))
        self.pages = {"g1": 0, "g2": 0}
        self.quotas = {"g1": UNLIMITED, "g2": UNLIMITED}
        self.under_way: Modelled | None = None
        self.waiting: list[Modelled] = []
        self.failed: set[str] = set()  # devices whose fit has, and is to be tried again

    def teardown(self) -> None:
        # What is held must end first, also after a failure.
        for _ in range(10):
            self.held.words.put("run")
        self.stack.close()

    def began(self, shrink: Modelled) -> None:
        assert self.held.reached.acquire(timeout=PATIENCE)
        self.under_way = shrink

    def room(self, name: str) -> int:
        """Pages that the device may have now."""
        now = self.under_way
        held = now.pages if now is not None and now.name == name else None
        return min(self.quotas[name], UNLIMITED if held is None else held)

    # --- guests and operators ---

    @rule(name=NAMES)
    def write(self, name: str) -> None:
        connection = self.instance.devices[name].connect()
        for page in range(1, PAGES + 1):
            connection.pwrite(page_of(page), page * PAGE)
        connection.close()
        self.pages[name] = max(self.pages[name], min(PAGES, self.room(name)))

    @rule(name=NAMES, pages=NUMBERS)
    def ask(self, name: str, pages: int) -> None:
        if any(shrink.pages is not None for shrink in self.unended()):
            with pytest.raises(RefusedError, match="under way already"):
                self.instance.begin_shrink(pages, name)
            return
        self.start_or_queue(Modelled(self.instance.begin_shrink(pages, name), name, pages))

    def unended(self) -> list[Modelled]:
        return [*([self.under_way] if self.under_way else []), *self.waiting]

    def start_or_queue(self, shrink: Modelled) -> None:
        if self.under_way is None:
            self.began(shrink)
        else:
            self.waiting.append(shrink)

    @rule(name=NAMES, pages=NUMBERS)
    def lower(self, name: str, pages: int) -> None:
        self.set(name, pages, str(pages))

    @rule(name=NAMES)
    def lift(self, name: str) -> None:
        self.set(name, UNLIMITED, "unlimited")

    def set(self, name: str, quota: int, text: str) -> None:
        self.quotas[name] = quota
        shrink = self.instance.set(f"preswap.test.{name}.quota", text).shrink
        self.failed.discard(name)
        self.fit(name, shrink)

    def fit(self, name: str, shrink: Shrink | None) -> None:
        """What the model expects of a fit that was asked for."""
        if self.pages[name] <= self.quotas[name]:
            assert shrink is None
            return
        assert shrink is not None
        for other in self.unended():
            if (other.name, other.pages, other.stopped) == (name, None, False):
                assert other.real is shrink
                other.again = True
                return
        self.start_or_queue(Modelled(shrink, name, None))

    @rule()
    def stop(self) -> None:
        if self.under_way is None:
            with pytest.raises(RefusedError, match="no shrink is under way"):
                self.instance.shrinks.stop()
            return
        self.instance.shrinks.stop()
        self.under_way.stopped = True

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up_waiting(self, data: st.DataObject) -> None:
        shrink = data.draw(st.sampled_from(self.waiting))
        shrink.real.stop()
        self.waiting.remove(shrink)
        may_stay = self.quotas[shrink.name] if shrink.pages is None else shrink.pages
        left = self.pages[shrink.name]
        result = shrink.real.wait()
        assert (result.moved, result.left, result.complete) == (0, left, left <= may_stay)

    # --- time goes by ---

    @precondition(lambda self: self.under_way is not None)
    @rule(word=st.sampled_from(["run", "run", "fail"]))
    def go_on(self, word: str) -> None:
        shrink = self.under_way
        assert shrink is not None
        if word == "run" and not shrink.stopped:
            may_stay = self.quotas[shrink.name] if shrink.pages is None else shrink.pages
            self.pages[shrink.name] = min(self.pages[shrink.name], may_stay)
        self.held.words.put(word)
        if shrink.again and not shrink.stopped:
            shrink.again = False
            self.began(shrink)
            return
        assert shrink.real.ended.wait(PATIENCE)
        self.under_way = None
        is_met = self.pages[shrink.name] <= self.quotas[shrink.name]
        if shrink.pages is None and not shrink.stopped and not is_met:
            self.failed.add(shrink.name)
        if self.waiting:
            self.began(self.waiting.pop(0))

    @rule()
    def maintain(self) -> None:
        """Fits that have failed are tried again."""
        self.instance.fitting.turn()
        for name in sorted(self.failed):
            self.failed.discard(name)
            self.fit(name, self.instance.fitting.fits[f"preswap.test.{name}.quota"])

    # --- what holds always ---

    @invariant()
    def pages_are_where_the_model_says(self) -> None:
        found = {name: self.instance.pages_in_tmem(name) for name in self.pages}
        assert found == self.pages

    @invariant()
    def what_is_told_is_true(self) -> None:
        told = self.instance.shrinks.status()
        assert told.running == (self.under_way is not None)
        assert list(told.waiting) == [
            f"preswap.test.{shrink.name}.quota"
            if shrink.pages is None
            else f"vm.preswap.{shrink.name}"
            for shrink in self.waiting
        ]
        if self.under_way is not None:
            is_fit = self.under_way.pages is None
            assert (told.device, told.setting is not None) == (self.under_way.name, is_fit)

    @invariant()
    def limits_are_kept_or_somebody_sees_to_it(self) -> None:
        """Unless an operator has stopped that."""
        seen_to = self.failed | {shrink.name for shrink in self.unended() if shrink.pages is None}
        for name in self.pages.keys() - seen_to:
            last = self.instance.fitting.fits.get(f"preswap.test.{name}.quota")
            was_stopped = last is not None and last.stopped.is_set()
            assert was_stopped or self.pages[name] <= self.quotas[name]


TestShrinksAgainstModel = ShrinksAgainstModel.TestCase
# Where it fails, each step waits for what does not come: finding a shorter example takes too long.
PHASES = [phase for phase in Phase if phase is not Phase.shrink]
TestShrinksAgainstModel.settings = settings(phases=PHASES)
