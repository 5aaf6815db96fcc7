# SPDX-License-Identifier: BSD-3-Clause
"""The process: its start, its end, and a server that says what cannot be."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from preswapd.remote.courier.__main__ import give_up_protection
from tests.remote.courier.carried import (
    AWAY,
    COURIER,
    FOUND,
    HEADER,
    STORED,
    RunningCourier,
    name_of,
)
from tests.remote.courier.conftest import StartCourier
from tests.remote.stores import StoreServer, needs_store
from tests.running import PATIENCE, wait_until

NOWHERE = "redis://127.0.0.1:1"


def test_it_ends_with_the_server(start_courier: StartCourier) -> None:
    courier = start_courier(NOWHERE)
    courier.wait_for_state("away")
    courier.sock.close()
    assert courier.process.wait(PATIENCE) == 0
    assert courier.said() == ""


def test_it_ends_when_the_server_reads_no_more(start_courier: StartCourier) -> None:
    courier = start_courier(NOWHERE)
    courier.wait_for_state("away")
    courier.sock.shutdown(socket.SHUT_RDWR)
    assert courier.process.wait(PATIENCE) == 0


def test_it_ends_at_sigterm_and_not_at_ctrl_c(start_courier: StartCourier) -> None:
    courier = start_courier(NOWHERE)
    courier.wait_for_state("away")
    courier.process.send_signal(signal.SIGINT)
    assert courier.set(name_of(1), b"x") == AWAY
    courier.process.send_signal(signal.SIGTERM)
    assert courier.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "frame",
    [
        HEADER.pack(0, ord("x"), 0, 0, 0, 1),
        HEADER.pack(0, ord("v"), 0, 0, 0, 1),
        HEADER.pack(0, ord("g"), 0, 0, 0, 1),
        HEADER.pack(17, ord("g"), 0, 0, 0, 1) + bytes(17),
        HEADER.pack(33 * 16, ord("g"), 0, 0, 0, 1) + bytes(33 * 16),
        HEADER.pack(16, ord("s"), 0, 0, 0, 1) + bytes(16),
        HEADER.pack(5, ord("s"), 0, 0, 0, 1) + bytes(5),
        HEADER.pack(16 + 4201, ord("s"), 0, 0, 0, 1) + bytes(16 + 4201),
        HEADER.pack(3, ord("d"), 0, 0, 0, 1) + bytes(3),
        HEADER.pack((1 << 20) + 1, ord("d"), 0, 0, 0, 1),
        HEADER.pack(16, ord("g"), 0, 0, 1, 1) + bytes(16),
        b"\xff" * 100,
    ],
)
def test_frames_that_cannot_be(frame: bytes, start_courier: StartCourier) -> None:
    courier = start_courier(NOWHERE)
    courier.sock.sendall(frame)
    assert courier.process.wait(PATIENCE) == 1
    assert "what the server says" in courier.said()
    assert "Traceback" not in courier.said()


@needs_store
def test_frames_in_any_pieces(courier: RunningCourier) -> None:
    sets = b"".join(
        HEADER.pack(16 + 100, ord("s"), 0, 0, 0, number) + name_of(number) + bytes(100)
        for number in range(1, 9)
    )
    for begin in range(0, len(sets), 7):
        courier.sock.sendall(sets[begin : begin + 7])
    assert [courier.answers(number, 1)[0].status for number in range(1, 9)] == [STORED] * 8


@needs_store
def test_the_longest_frame(courier: RunningCourier) -> None:
    courier.set(name_of(1), b"x")
    names = [name_of(number) for number in range(1 << 16)]
    courier.delete(*names)
    wait_until(lambda: courier.value(name_of(1)) is None, "the deletion")


@needs_store
def test_a_server_that_does_not_read(store: StoreServer, courier: RunningCourier) -> None:
    """It is asked no more than is bounded, and goes on once it is read again."""
    courier.set(name_of(1), bytes(4000))
    frame = HEADER.pack(16, ord("g"), 0, 0, 0, 7) + name_of(1)
    frames = 0
    while is_read(courier.sock):
        courier.sock.sendall(frame * 500)
        frames += 500
    # The answers of all would be 400 MB.
    assert frames < 100_000
    assert resident(courier.process.pid) < 120 << 20
    answers = courier.answers(7, frames)
    assert {answer.status for answer in answers} <= {FOUND, AWAY}
    assert {answer.payload for answer in answers if answer.status == FOUND} == {bytes(4000)}
    assert courier.value(name_of(1)) == bytes(4000)


def is_read(sock: socket.socket) -> bool:
    """Whether the other end takes everything within a time in which it otherwise would."""
    deadline = time.monotonic() + 3
    while unread(sock):
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def unread(sock: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- what it needs ---


def started(text: str, python: Sequence[str] = COURIER) -> subprocess.CompletedProcess[str]:
    ours, its = socket.socketpair()
    with ours, its:
        return subprocess.run(
            [*python, "--fd", str(its.fileno())],
            input=text,
            text=True,
            capture_output=True,
            pass_fds=[its.fileno()],
            timeout=PATIENCE,
            check=False,
        )


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("", "settings"),
        ("[]", "settings"),
        ("{}", "url"),
        ('{"url": "http://x", "timeout_ms": 5}', "begins with redis://"),
        ('{"url": "redis://", "timeout_ms": 5}', "nothing"),
        ('{"url": "redis://a:b", "timeout_ms": 5}', "a:b"),
        ('{"url": "redis://a/b", "timeout_ms": 5}', "number of a database"),
        ('{"url": "redis://a?b=c", "timeout_ms": 5}', "behind its path"),
        ('{"url": "redis://:secret@a", "timeout_ms": 5}', "it is read from a file"),
        ('{"url": "redis://a"}', "timeout_ms"),
        (
            '{"version": "0.0.9", "key": "of another version"}',
            "server is 0.0.9: restart the server",
        ),
        ('{"url": "redis://a", "timeout_ms": 0}', "positive"),
        ('{"url": "redis://a", "timeout_ms": 5, "no": 1}', "an object of"),
    ],
)
def test_settings_that_cannot_be_used(settings: str, why: str) -> None:
    done = started(settings)
    assert done.returncode == 2
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_client_library() -> None:
    hidden = (
        "import sys, runpy; sys.modules['redis'] = None; "
        "runpy.run_module('preswapd.remote.courier', run_name='__main__')"
    )
    done = started(json.dumps({"url": NOWHERE, "timeout_ms": 5}), [sys.executable, "-c", hidden])
    assert done.returncode == 2
    assert "pip install 'preswapd[remote]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("before", "after"), [("-900\n", "0"), ("0\n", "0\n"), ("300\n", "300\n")])
def test_a_score_that_keeps_from_being_killed(before: str, after: str, tmp_path: Path) -> None:
    score = tmp_path / "score"
    give_up_protection(score)
    score.write_text(before)
    give_up_protection(score)
    assert score.read_text() == after


def test_it_does_not_inherit_that_a_server_is_not_killed_for_memory() -> None:
    own = Path("/proc/self/oom_score_adj")
    before = own.read_text()
    try:
        own.write_text("-900")
    except PermissionError:
        pytest.skip("to lower the score takes CAP_SYS_RESOURCE, which this user lacks here")
    try:
        courier = RunningCourier(NOWHERE)
    finally:
        own.write_text(before)
    with courier:
        courier.wait_for_state("away")
        score = Path(f"/proc/{courier.process.pid}/oom_score_adj")
        assert score.read_text() == "0\n"


def test_it_dies_with_its_parent() -> None:
    """Also where that leaves the socket's other end to somebody else."""
    ours, its = socket.socketpair()
    code = (
        "import subprocess, sys, signal; "
        f"child = subprocess.Popen({[*COURIER, '--fd', str(its.fileno())]!r}, "
        f"pass_fds=[{its.fileno()}], stdin=subprocess.PIPE); "
        f"child.stdin.write({json.dumps({'url': NOWHERE, 'timeout_ms': 5}).encode()!r}); "
        "child.stdin.close(); print(child.pid, flush=True); signal.pause()"
    )
    with ours, its:
        parent = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[its.fileno()]
        )
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        ours.settimeout(PATIENCE)
        assert ours.recv(HEADER.size)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        wait_until(lambda: not is_running(pid), "its end")


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False
