# SPDX-License-Identifier: BSD-3-Clause
"""Inputs that fuzzers found, once more: see tools/fuzz and docs/verification.md."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compiling import INCLUDES, LIBRARIES, TMEM
from tests.fuzz.answers import Wrong, statuses
from tests.fuzz.targets import Targets

HERE = Path(__file__).parent
PROGRAM = ["arena.c", "image.c", "expected.c", "consistent.c", "replay.c"]
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,--wrap=fstatvfs"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def inputs(name: str) -> list[Path]:
    return sorted((HERE / "corpus" / name).iterdir())


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory in shared memory."""
    path = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


def build(program: Path) -> None:
    files = [*(HERE / name for name in PROGRAM), *sorted(TMEM.glob("*.c"))]
    command = ["cc", *FLAGS, *INCLUDES, *map(str, files), "-o", str(program)]
    built = subprocess.run([*command, *SANITIZERS, *LIBRARIES], capture_output=True, text=True)
    if built.returncode and "cannot find" in built.stderr:  # a compiler without sanitizers
        built = subprocess.run([*command, *LIBRARIES], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr


def test_arena(tmp_path: Path, folder: Path) -> None:
    build(tmp_path / "replay")
    ended = subprocess.run(
        [tmp_path / "replay", *inputs("arena")],
        env={**os.environ, "FUZZ_DIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def targets() -> Iterator[Targets]:
    path = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    with Targets(path) as made:
        yield made
    shutil.rmtree(path)


@pytest.mark.parametrize("path", inputs("control"), ids=lambda path: path.name)
def test_control(targets: Targets, path: Path) -> None:
    targets.run(path.read_bytes())


# --- the checks themselves ---

OK = b"HTTP/1.1 200 OK\r\n"


def test_answers_are_told_apart() -> None:
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    plain = OK + b"Content-Length: 2\r\n\r\n{}"
    head_only = b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\n"
    going_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert statuses(going_on + chunked + head_only + plain) == [100, 200, 404, 200]


@pytest.mark.parametrize(
    "answers",
    [
        b"{}",
        OK + b"Content-Length: 9\r\n\r\n{}",
        OK + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc",
        OK + b"Bad\xff: x\r\n\r\n",
    ],
)
def test_what_is_no_answer(answers: bytes) -> None:
    with pytest.raises(Wrong):
        statuses(answers)
