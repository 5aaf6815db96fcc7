"""A pool's pages are made to fit its lowered limit, whatever is in the way."""

import os
import pty
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from preswapd.api.client import Client, RunningShrink
from preswapd.api.figures import Statistics
from preswapd.api.wire import ShrinkReport, ShrinkStep
from preswapd.cli.steer.shrinking import FITTING_ROUNDS, Progress, fit_pool
from preswapd.errors import PartialError, RefusedError


class Done(RunningShrink):
    def __init__(self) -> None:
        pass

    def wait(self, progress: object) -> ShrinkReport:
        return ShrinkReport(moved=10, left=0, lost=0, complete=True)


class Pool(Client):
    """A server whose pool fits after so many shrinks; None: another shrink is under way."""

    def __init__(self, rounds: int | None) -> None:
        super().__init__(Path("/nowhere"))
        self.rounds = rounds

    def stats(self) -> Statistics:
        used = 100 if self.rounds == 0 else 200
        tmem = {"stored_pages": 50, "mem_used_total": used, "mem_limit": 100}
        return cast(Statistics, {"tmem": tmem})

    @contextmanager
    def shrink(self, pages: int, device: str | None = None) -> Iterator[RunningShrink]:
        if self.rounds is None:
            raise RefusedError("a shrink is under way already")
        self.rounds -= 1
        yield Done()


@pytest.mark.parametrize("rounds", [0, 1, FITTING_ROUNDS])
def test_as_often_as_it_takes(rounds: int) -> None:
    report = fit_pool(Pool(rounds))
    assert (report.complete, report.moved) == (True, 10 * rounds)


def test_not_for_ever() -> None:
    assert not fit_pool(Pool(FITTING_ROUNDS + 1)).complete


def test_refused_shrink_leaves_the_limit_set() -> None:
    """Which is not "nothing was changed"."""
    with pytest.raises(PartialError, match=r"the limit is set .* a shrink is under way already"):
        fit_pool(Pool(None))


@pytest.mark.parametrize(("columns", "longest"), [(30, 29), (0, 100)])
def test_progress_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int, longest: int
) -> None:
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (24, columns))
        with open(slave, "w") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            Progress().show(ShrinkStep(moved=40960, left=90112, target=12))
            text = os.read(master, 1000).decode()
        shown = text.removeprefix("\r\033[K")
        assert shown.startswith("40960 pages (160M) moved")
        assert len(shown) <= longest
        assert ("target 12" in shown) == (columns == 0)
    finally:
        os.close(master)
