# SPDX-License-Identifier: BSD-3-Clause
"""A shrink as the operator sees it."""

import os
import pty
import sys
import termios

import pytest

from preswapd.api.messages import ShrinkProgress
from preswapd.api.progress import Pace
from preswapd.cli.steer.following import Progress


@pytest.mark.parametrize(("columns", "longest"), [(30, 29), (0, 100)])
def test_progress_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, columns: int, longest: int
) -> None:
    master, slave = pty.openpty()
    try:
        termios.tcsetwinsize(slave, (24, columns))
        with open(slave, "w") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            Progress().show(ShrinkProgress(moved=40960, left=90112, target=12))
            text = os.read(master, 1000).decode()
        shown = text.removeprefix("\r\033[K")
        assert shown.startswith("40960 pages (160M) moved")
        assert len(shown) <= longest
        assert ("target 12" in shown) == (columns == 0)
    finally:
        os.close(master)


@pytest.mark.parametrize(("is_journal", "lines"), [(False, 3), (True, 1)])
def test_journal_keeps_few_lines(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_journal: bool,
    lines: int,
) -> None:
    monkeypatch.setattr("preswapd.cli.steer.following.stderr_is_journal", lambda: is_journal)
    progress = Progress()
    for moved in range(3):
        progress.show(ShrinkProgress(moved=moved, left=9 - moved, target=0))
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_rate_is_of_what_was_seen_to_move() -> None:
    """The server had moved 40,960 pages before anybody here looked."""
    pace = Pace()
    assert pace.rate(ShrinkProgress(40960, 90112, 12), 100.0) == ""
    assert pace.rate(ShrinkProgress(40960, 90112, 12), 101.0) == ""
    said = pace.rate(ShrinkProgress(41472, 89612, 12), 102.0)
    assert said == ", 1M/s, 350 s to go"


def test_rate_of_less_than_a_page_a_second() -> None:
    pace = Pace()
    pace.rate(ShrinkProgress(0, 100, 0), 100.0)
    assert pace.rate(ShrinkProgress(1, 99, 0), 104.0) == ", 1K/s, 396 s to go"


def test_first_line_has_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().show(ShrinkProgress(40960, 90112, 12))
    assert capsys.readouterr().err == "40960 pages (160M) moved, 90112 left, target 12\n"
