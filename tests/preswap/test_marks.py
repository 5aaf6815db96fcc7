# SPDX-License-Identifier: BSD-3-Clause
"""Busy marks are taken in turn: readers that keep coming do not keep a writer out.

turns.c plays it out with threads; without their turns the writer never gets its mark.
"""

import subprocess
from pathlib import Path

from tests.compiling import INCLUDES

HERE = Path(__file__).parent


def test_readers_that_keep_coming_do_not_keep_a_writer_out(tmp_path: Path) -> None:
    program = tmp_path / "turns"
    flags = ["-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", *INCLUDES]
    subprocess.run(["cc", *flags, "-o", program, HERE / "turns.c", "-lpthread"], check=True)
    played = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert (played.returncode, played.stderr) == (0, "")
