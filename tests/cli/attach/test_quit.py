# SPDX-License-Identifier: BSD-3-Clause
"""QEMU is ended while the server is down: it waits for the server, which need not be lost on it."""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cli.conftest import Machine, StartMachine
from tests.running import GUEST_PATIENCE, PATIENCE, RunningServer, wait_until


@pytest.fixture
def machine(server: RunningServer, start_machine: StartMachine) -> Machine:
    """With the server's disk, and the server is killed."""
    found = start_machine(*json.loads(server.ctl("--json", "qemu-args", "g1").stdout))
    server.kill()
    return found


@contextmanager
def asked_to_quit(machine: Machine) -> Iterator[None]:
    """QEMU has heard it, and says that it will."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(PATIENCE)
        monitor.connect(str(machine.qmp))
        monitor.sendall(b'{"execute":"qmp_capabilities"}{"execute":"quit"}')
        heard = b""
        while b"SHUTDOWN" not in heard:
            more = monitor.recv(4096)
            assert more, f"QEMU closed its monitor after {heard!r}"
            heard += more
        yield


def test_quit_ends_when_the_server_is_back(server: RunningServer, machine: Machine) -> None:
    with asked_to_quit(machine):
        assert machine.process.poll() is None
        server.start()
        # It tries to connect after up to 16 s.
        assert machine.process.wait(GUEST_PATIENCE) == 0
    # Its flush was all that it had to ask for.
    wait_until(lambda: not is_awaited(server), "the end of its connection to be noted")


def test_quit_does_not_keep_qemu_from_being_killed(server: RunningServer, machine: Machine) -> None:
    with asked_to_quit(machine):
        machine.process.kill()
        assert machine.process.wait(PATIENCE) == -signal.SIGKILL
    server.start()
    assert is_awaited(server)


def is_awaited(server: RunningServer) -> bool:
    return bool(server.json_stats()["devices"]["g1"]["awaited"])
