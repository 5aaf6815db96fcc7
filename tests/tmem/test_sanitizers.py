# SPDX-License-Identifier: BSD-3-Clause
"""The page store in C, hammered by threads, alone and under the compiler's sanitizers."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.compiling import INCLUDES, LIBRARIES, TMEM

HERE = Path(__file__).parent
SANITIZERS = {"plain": [], "thread": ["-fsanitize=thread"], "address": ["-fsanitize=address"]}
ROUNDS = {
    "hammer": {"plain": 40_000, "thread": 5_000, "address": 8_000},
    "swings": {"plain": 40_000, "thread": 4_000, "address": 8_000},
}
# What the last line counts: without it the program has tested nothing.
WORKED = {"hammer": "the mover", "swings": "eviction"}


@pytest.fixture(
    scope="module",
    # Those who need the same objects get them from one worker.
    params=[pytest.param(s, marks=pytest.mark.xdist_group(f"hammered-{s}")) for s in SANITIZERS],
)
def sanitizer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory, sanitizer: str) -> list[Path]:
    """The page store, compiled once for all programs."""
    folder = tmp_path_factory.mktemp(sanitizer)
    compile_by(SANITIZERS[sanitizer], "-c", *map(str, sorted(TMEM.glob("*.c"))), cwd=folder)
    return sorted(folder.glob("*.o"))


def compile_by(flags: list[str], *arguments: str, cwd: Path) -> None:
    command = ["cc", "-std=gnu11", "-g", "-O1", *flags, *INCLUDES, *arguments]
    built = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if built.returncode and flags and "cannot find" in built.stderr:
        pytest.skip(f"this compiler has no {flags[0]}")
    assert built.returncode == 0, built.stderr


@pytest.mark.parametrize("name", ROUNDS)
def test_hammered(
    tmp_path: Path, shm: Path, objects: list[Path], name: str, sanitizer: str
) -> None:
    program = tmp_path / name
    files = [HERE / f"{name}.c", *objects]
    compile_by(SANITIZERS[sanitizer], *map(str, files), *LIBRARIES, "-o", str(program), cwd=HERE)
    is_long = os.environ.get("HYPOTHESIS_PROFILE") == "long"
    rounds = ROUNDS[name][sanitizer] * (20 if is_long else 1)
    command = [str(program), str(shm / "arena"), str(rounds)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert int(ended.stdout) > 0, f"{WORKED[name]} had nothing to do"
