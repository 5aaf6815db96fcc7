# SPDX-License-Identifier: BSD-3-Clause
"""How the demonstration ends when something is not as promised."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
import pytest

from preswapd.demo import command, scenario
from preswapd.demo.checks import DemoError
from preswapd.demo.command import demo_command
from preswapd.demo.scenario import Step
from preswapd.demo.server import ServerError, as_a_shell_reads, installed
from preswapd.demo.stage import Stage
from preswapd.errors import UsageError
from preswapd.guest.faults import SetupError


def good(stage: Stage) -> None:
    stage.check(True, "the first thing held")


def bad(stage: Stage) -> None:
    stage.check(False, "3 of 4 pages came back")


def broken(stage: Stage) -> None:
    raise ServerError("the server did not start", "preswapd: no space")


def play(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[Stage], None]) -> int:
    monkeypatch.setattr(command, "STEPS", [Step("A step", step) for step in steps])
    status: int = demo_command.main([], standalone_mode=False)
    return status


def test_demo_whose_checks_hold_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(monkeypatch, good) == 0
    assert "every one of the 1 checks passed" in capsys.readouterr().out


def test_demo_goes_on_after_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(monkeypatch, bad, good) == 1
    out = capsys.readouterr().out
    assert "ok  the first thing held" in out
    assert out.strip().endswith("1 of 2 checks failed:\n  FAILED  3 of 4 pages came back")


def test_demo_ends_at_a_step_that_cannot_be_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(monkeypatch, good, broken, bad) == 1
    out = capsys.readouterr().out
    assert "preswapd: no space" in out
    assert "FAILED  A step: the server did not start" in out
    assert "3 of 4" not in out


def test_demo_on_a_host_that_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(stage: Stage) -> None:
        raise SetupError("memtester is not installed")

    with pytest.raises(SetupError):
        play(monkeypatch, lacking)


@pytest.mark.parametrize(("available", "enough"), [(687 << 20, False), (688 << 20, True)])
def test_demo_on_a_small_host(
    monkeypatch: pytest.MonkeyPatch, available: int, enough: bool
) -> None:
    def begun() -> NoReturn:
        raise SetupError("it went on")

    monkeypatch.setattr(scenario, "available_memory", lambda: available)
    monkeypatch.setattr(scenario, "find_tools", begun)
    told = "it went on" if enough else "programs can get 687M of memory here, .* needs 688M"
    with pytest.raises(SetupError, match=told):
        play(monkeypatch, scenario.prepare)


def test_demo_interrupted_cleans_up_and_only_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[bool] = []

    def interrupted(stage: Stage) -> None:
        # A second Ctrl-C while it cleans up does not stop that.
        stage.stack.callback(lambda: cleaned.append(True))
        stage.stack.callback(os.kill, os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises((KeyboardInterrupt, click.Abort)):
        play(monkeypatch, interrupted)
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGINT) is before


def test_kernel_needs_its_modules() -> None:
    with pytest.raises(UsageError, match="go together"):
        demo_command.main(["--kernel", "/boot/vmlinuz"], standalone_mode=False)


def test_pool_that_would_never_be_full_is_refused() -> None:
    with pytest.raises(UsageError, match="never be full"):
        demo_command.main(["--pool-size", "1G"], standalone_mode=False)


def test_as_a_shell_reads_what_is_pasted() -> None:
    assert as_a_shell_reads("-a '{\"b\": 1}' \\\n-c d") == ["-a", '{"b": 1}', "-c", "d"]


def test_installed_commands_are_those_beside_this_one() -> None:
    assert Path(installed("preswapctl")).is_file()
    with pytest.raises(DemoError, match="no-such-command"):
        installed("no-such-command")
