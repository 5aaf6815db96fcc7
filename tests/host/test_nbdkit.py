# SPDX-License-Identifier: BSD-3-Clause
"""Which nbdkit will do, and what its version asks for."""

import os
from pathlib import Path

import pytest

from preswapd.errors import MisfitError, RefusedError
from preswapd.host import nbdkit
from preswapd.host.versions import Version


def put_in_path(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """An nbdkit that answers as one of another release would."""
    program = folder / "nbdkit"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("preswapd.host.nbdkit.sys.executable", str(folder / "python"))
    monkeypatch.setenv("PATH", f"{folder}:/bin")


def test_the_installed_one_will_do() -> None:
    found = nbdkit.probe()
    assert found.version >= nbdkit.OLDEST
    assert found.python == nbdkit.OUR_PYTHON


def test_own_interpreter_comes_first() -> None:
    first = nbdkit.environment()["PATH"].split(os.pathsep)[0]
    assert Path(first, "python").exists()


def test_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("preswapd.host.nbdkit.sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RefusedError, match="not installed"):
        nbdkit.probe()


def test_one_that_gives_no_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_in_path(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr("preswapd.host.nbdkit.PROBE_SECONDS", 0.1)
    with pytest.raises(RefusedError, match="nbdkit --version gave no answer in"):
        nbdkit.probe()


def test_one_that_tells_no_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_in_path(monkeypatch, tmp_path, "echo hello")
    with pytest.raises(RefusedError, match="'hello', which is not a version"):
        nbdkit.probe()


def test_plugin_that_tells_no_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_in_path(monkeypatch, tmp_path, "echo nbdkit 1.36.2")
    with pytest.raises(RefusedError, match="does not say which Python"):
        nbdkit.probe()


def test_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_in_path(monkeypatch, tmp_path, "echo nbdkit 1.26.5")
    with pytest.raises(RefusedError, match=r"1\.26\.5 is too old"):
        nbdkit.probe()


def test_no_python_plugin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = '[ "$1" = --version ] && echo nbdkit 1.32.5 && exit; echo "{}" >&2; exit 1'
    put_in_path(monkeypatch, tmp_path, script.format("nbdkit: error: cannot open plugin 'python'"))
    with pytest.raises(RefusedError, match="Python plugin is not installed"):
        nbdkit.probe()
    put_in_path(monkeypatch, tmp_path, script.format("nbdkit: get_current_dir_name: No such file"))
    with pytest.raises(RefusedError, match="failed: nbdkit: get_current_dir_name"):
        nbdkit.probe()


def test_other_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = 'if [ "$1" = --version ]; then echo nbdkit 1.32.5; else echo python_version=3.8.1; fi'
    put_in_path(monkeypatch, tmp_path, script)
    with pytest.raises(MisfitError, match=r"embeds Python 3\.8") as refused:
        nbdkit.probe()
    # What the unit does not try again for ever.
    assert refused.value.exit_status == 2


def test_free_threaded_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same version as the one that nbdkit's plugin embeds."""
    monkeypatch.setattr("preswapd.host.nbdkit.sys.abiflags", "t")
    with pytest.raises(MisfitError, match=r"free-threaded Python 3\.\d+.*/usr/bin/python3 -m venv"):
        nbdkit.probe()


@pytest.mark.parametrize(
    ("version", "threads"),
    [((1, 32, 5), 1), ((1, 33, 9), 1), ((1, 33, 10), 16), ((1, 34, 0), 16), ((1, 42, 2), 16)],
)
def test_threads(version: Version, threads: int) -> None:
    assert nbdkit.choose_threads(version, None)[0] == threads


def test_asked_threads_win() -> None:
    threads, reason = nbdkit.choose_threads((1, 32, 5), 4)
    assert threads == 4
    assert reason.startswith("as configured, although nbdkit before 1.33.10")


@pytest.mark.parametrize(
    ("version", "offered"),
    [
        ((1, 32, 5), False),
        ((1, 38, 5), False),
        ((1, 38, 6), True),
        ((1, 39, 9), False),
        ((1, 40, 6), True),
        ((1, 42, 1), False),
        ((1, 42, 2), True),
        ((1, 44, 0), True),
    ],
)
def test_structured_replies(version: Version, offered: bool) -> None:
    assert nbdkit.choose_structured_replies(version)[0] is offered
