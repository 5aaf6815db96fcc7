# SPDX-License-Identifier: BSD-3-Clause
"""Threads that wait for a courier's answers at once, and set, played by asks.c under sanitizers."""

import subprocess
from pathlib import Path

import pytest

from tests.compiling import INCLUDES, REMOTE

SANITIZERS = {"plain": [], "thread": ["-fsanitize=thread"], "address": ["-fsanitize=address"]}
# A queue that is soon full, and whose end is often reached.
QUEUE = "-DQUEUE_BYTES=(512u<<10)"
FLAGS = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", QUEUE]
# Some kernels place programs where the thread sanitizer cannot look.
IN_PLACE = ["setarch", "-R"]


@pytest.mark.timeout(700)
@pytest.mark.parametrize("kind", SANITIZERS)
def test_each_page_comes_to_who_asked_and_each_set_whole(kind: str, tmp_path: Path) -> None:
    program = tmp_path / "asks"
    ours = [str(REMOTE / name) for name in ("courier.c", "queue.c")]
    files = [str(Path(__file__).parent / "asks.c"), *ours]
    libraries = ["-lpthread", "-Wl,--wrap=send"]
    command = ["cc", *FLAGS, *SANITIZERS[kind], *INCLUDES, "-o", str(program), *files, *libraries]
    subprocess.run(command, check=True)
    # Four seconds under ThreadSanitizer by itself; others want the processors too.
    done = subprocess.run([*IN_PLACE, str(program)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 wrong" in done.stdout
