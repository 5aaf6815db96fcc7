# SPDX-License-Identifier: BSD-3-Clause
"""Races that threads meet too seldom to be a test, played out step by step by steps.c.

The mover's look at the sequence number is a second line: the slab that it empties hands out no
slots meanwhile, so today no slot can be filled again under it.
"""

import subprocess
from pathlib import Path

import pytest

from tests.compiling import INCLUDES, LIBRARIES, TMEM

HERE = Path(__file__).parent
CASES = (
    "compression_meets_a_put",
    "get_that_removes_meets_a_put",
    "get_that_removes_meets_another",
    "mover_meets_a_slot_filled_again",
    "mover_meets_nobody",
    "put_compresses_into_the_next_pool_of_its_number",
    "put_meets_the_end_of_its_pool",
    "put_meets_the_next_pool_of_its_number",
    "put_that_must_not_wait_evicts_nothing",
    "put_waits_for_staged_pages",
    "recompression_keeps_the_sequence_number",
    "recompression_meets_a_flush",
    "recompression_meets_a_put",
    "recompression_meets_the_mover",
    "recompression_meets_the_next_pool_of_its_number",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("steps") / "steps"
    files = [HERE / "steps.c", *(f for f in TMEM.glob("*.c") if f.name != "mover.c")]
    command = ["cc", "-std=gnu11", "-g", "-O1", "-Wall", *INCLUDES, "-o", str(program)]
    command += ["-Wl,--wrap=codec_unpack", "-Wl,--wrap=codec_pack"]
    command += [*map(str, files), *LIBRARIES]
    subprocess.run(command, check=True)
    return program


@pytest.mark.parametrize("case", CASES)
def test_steps(program: Path, shm: Path, case: str) -> None:
    played = subprocess.run([program, shm / "arena", case], capture_output=True, text=True)
    assert (played.returncode, played.stderr) == (0, "")
