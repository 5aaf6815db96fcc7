# SPDX-License-Identifier: BSD-3-Clause
"""What following pages costs in instructions, as callgrind counts them: the same in each run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.compiling import BLOCK, DEVICE, INCLUDES, LIBRARIES, TMEM, sources
from tests.running import IS_SANITIZED

HERE = Path(__file__).parent
NOBODY, SOME = 63, 4  # as powers of two: of so many pages one is followed
ONCE, TIMES = 500, 3000


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cost") / "cost"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    files = [str(HERE / "cost.c"), *sources(TMEM, BLOCK, DEVICE)]
    command = ["cc", *flags, *INCLUDES, "-o", str(path), *files, *LIBRARIES]
    subprocess.run(command, check=True)
    return path


def instructions(program: Path, folder: Path, shift: int, operation: str, times: int) -> int:
    arguments = [str(program), str(folder), str(shift), operation, str(times)]
    counting = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*counting, *arguments], capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found
    return int(found[1])


def a_page(program: Path, folder: Path, shift: int, operation: str) -> float:
    counts = [instructions(program, folder, shift, operation, times) for times in (ONCE, TIMES)]
    return (counts[1] - counts[0]) / (TIMES - ONCE)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts them")
@pytest.mark.skipif(IS_SANITIZED, reason="valgrind does not run under a sanitizer")
@pytest.mark.parametrize("operation", ["read", "write"])
def test_following_pages_costs_hardly_anything(program: Path, base: Path, operation: str) -> None:
    """In /dev/shm: valgrind has no room for an arena that may grow as large as a disk."""
    none, some = (a_page(program, base, shift, operation) for shift in (NOBODY, SOME))
    print(f"{operation}: {none:.1f} instructions a page, {some:.1f} where one in 16 is followed")
    assert none < some < 1.01 * none
