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


def build(source: Path, program: Path, flags: list[str]) -> None:
    files = [source, *sorted(TMEM.glob("*.c"))]
    command = ["cc", "-std=gnu11", "-g", "-O1", *flags, *INCLUDES, "-o", str(program)]
    command += [*map(str, files), *LIBRARIES]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and flags and "cannot find" in built.stderr:
        pytest.skip(f"this compiler has no {flags[0]}")
    assert built.returncode == 0, built.stderr


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("name", ROUNDS)
def test_hammered(tmp_path: Path, shm: Path, name: str, sanitizer: str) -> None:
    program = tmp_path / name
    build(HERE / f"{name}.c", program, SANITIZERS[sanitizer])
    is_long = os.environ.get("HYPOTHESIS_PROFILE") == "long"
    rounds = ROUNDS[name][sanitizer] * (20 if is_long else 1)
    command = [str(program), str(shm / "arena"), str(rounds)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert int(ended.stdout) > 0, f"{WORKED[name]} had nothing to do"
