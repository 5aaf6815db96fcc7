# SPDX-License-Identifier: BSD-3-Clause
"""The store that guests run: its turns, and that it notices memory that is not what it wrote."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import capture, guest_jobs
from benchmarks.guest_jobs import served
from tests.running import wait_until

SIZE = 4 << 20
TURN = 2000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """One of SIZE; it is stopped."""
    program = tmp_path / "store"
    program.write_bytes(guest_jobs.built_store())
    program.chmod(0o755)
    _, *arguments = guest_jobs.store(SIZE >> 20, 0, turn=TURN).split()
    with subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert line_of(process) == "ready\n"
        yield process
        process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def turn(process: subprocess.Popen[str]) -> str:
    wait_for_stop(process)
    process.send_signal(signal.SIGCONT)
    return line_of(process)


def wait_for_stop(process: subprocess.Popen[str]) -> None:
    wait_until(lambda: is_stopped(process.pid), "the store to stop itself")


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_turns_have_so_many_requests(store: subprocess.Popen[str]) -> None:
    for _ in range(3):
        line = turn(store)
        seconds, requests = (float(word) for word in line.split()[:2])
        assert requests == TURN
        assert served(line).seconds == seconds
    wait_for_stop(store)


def test_it_ends_well_when_all_is_right(store: subprocess.Popen[str]) -> None:
    turn(store)
    wait_for_stop(store)
    assert end(store) == (0, "")


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def test_older_pages_are_noticed(store: subprocess.Popen[str]) -> None:
    """As if they came from an older time: each of them was right once."""
    turn(store)
    wait_for_stop(store)
    older = memory_of(store.pid)
    turn(store)
    wait_for_stop(store)
    address, content = older
    with open(f"/proc/{store.pid}/mem", "r+b", buffering=0) as memory:
        os.pwrite(memory.fileno(), content, address)
    status, output = end(store)
    assert status == 1
    assert re.search(r"^record \d+ is wrong$", output, re.M)


def memory_of(pid: int) -> tuple[int, bytes]:
    """Where its records are, the one large mapping that it has, and what is in them."""
    ranges = capture.private_ranges(Path(f"/proc/{pid}/maps").read_text())
    (records,) = [one for one in ranges if one.end - one.start >= SIZE]
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        size = records.end - records.start
        return records.start, os.pread(memory.fileno(), size, records.start)
