# SPDX-License-Identifier: BSD-3-Clause
"""A shrink as the operator sees it."""

import os
import pty
import sys
import termios

import pytest

from preswapd.api.messages import ShrinkProgress
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
