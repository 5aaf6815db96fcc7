# SPDX-License-Identifier: BSD-3-Clause
"""How commands end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from preswapd.commandline import SIZE, report, run
from preswapd.errors import PartialError, RefusedError
from tests.running import PRESWAPCTL

AT_EXIT = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGINT)"


@pytest.fixture(autouse=True)
def own_interrupt() -> Iterator[None]:
    """run() ends a process, and so takes SIGINT from the one that it runs in."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupt_after_the_end_changes_nothing() -> None:
    command = f"{AT_EXIT}; from preswapd.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("preswapctl ")


def ending(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = report(error, "prog")
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RefusedError("no"), 4),
        (PartialError("half"), 5),
        (click.UsageError("what"), 2),
        (OSError(28, "No space left on device"), 1),
        (ValueError("bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_one_line_and_a_status(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found, text = ending(error, capsys)
    assert found == status
    assert text.startswith("prog: ")
    assert text.count("\n") == 1


def test_message_over_lines_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(RefusedError("a\n  b"), capsys) == (4, "prog: a b\n")


def test_returned_number_is_the_status() -> None:
    @click.command()
    def command() -> int:
        return 3

    with pytest.raises(SystemExit) as ended:
        run_without_arguments(command)
    assert ended.value.code == 3


def run_without_arguments(command: click.Command) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["prog"])
        run(command, "prog")


def test_bad_value_becomes_clicks_complaint() -> None:
    with pytest.raises(click.BadParameter, match="is not a size"):
        SIZE("x")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("--version >&-", 0),
        ("--version 2>&-", 0),
        ("list >&- 2>&-", 3),
        ("list <&- >&- 2>&-", 3),
        ("list 2>/dev/full", 3),
        ("--version >/dev/full", 1),
    ],
)
def test_streams_that_are_closed_or_full(arguments: str, status: int) -> None:
    command = f"{PRESWAPCTL} --runtime-dir=/nonexistent {arguments}"
    # Unbuffered, an error would show at once and not at the end.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == status
    assert "internal error" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["list", "--json"], "--json goes before the command: preswapctl --json list"),
        (
            ["shrink", "0", "--instance=vm1"],
            "--instance goes before the command: preswapctl --instance NAME shrink",
        ),
    ],
)
def test_option_behind_its_command(arguments: list[str], where: str) -> None:
    done = subprocess.run([PRESWAPCTL, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"preswapctl: {where}\n")
