# SPDX-License-Identifier: BSD-3-Clause
"""SIGTERM under load: the connection drops, no request is answered with an error."""

import errno
import random
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect, connected, discard
from tests.conftest import StartServer
from tests.nbd.conftest import MIB
from tests.running import PRESWAPCTL, RunningServer

# More of each writer than a server lives to see, however busy its machine is.
PAGES = 4096
DEVICES = ("g1", "g2")
STOP_AT, SLOW_FROM = 340, 680
ENDED = object()


@pytest.fixture(params=["32M", "4M"], ids=["ample", "full"])
def loaded(request: pytest.FixtureRequest, start_server: StartServer) -> RunningServer:
    server = start_server(devices=dict.fromkeys(DEVICES, "64M"), pool_size=request.param)
    for device in DEVICES:
        discard(connected(server, device)).shutdown()
    return server


class Writer:
    """Keeps eight writes in flight until its connection ends, and notes the answers."""

    def __init__(self, server: RunningServer, device: str) -> None:
        self.client = connected(server, device)
        self.random = random.Random(device)
        self.device = device
        self.sent: dict[int, bytes] = {}
        self.answered: dict[int, bytes] = {}
        self.errors: list[int] = []

    def write(self, page: int) -> None:
        content = self.random.randbytes(PAGE)
        self.sent[page] = content

        def completed(error: Any) -> int:
            if error.value:
                self.errors.append(error.value)
            else:
                self.answered[page] = content
            return 1

        self.client.aio_pwrite(content, page * PAGE, completion=completed)

    def run(self) -> Iterator[None]:
        """One step at a time; each page is written once."""
        try:
            for page in range(1, 1 + PAGES):
                while self.client.aio_in_flight() >= 8:
                    self.client.poll(-1)
                self.write(page)
                yield
            while self.client.aio_in_flight():
                self.client.poll(-1)
        except nbd.Error:
            assert self.client.aio_is_dead() or self.client.aio_is_closed()


def written_until_stop(server: RunningServer, number: int) -> list[Writer]:
    """Two writers, with the signal in their midst.

    What comes later goes slowly: a busy machine may take long to tell the server of it.
    """
    writers = [Writer(server, device) for device in DEVICES]
    runs = [writer.run() for writer in writers]
    for step in range(PAGES + 1):
        if not runs:
            break
        if step == STOP_AT:
            server.running.send_signal(number)
        if step > SLOW_FROM:
            time.sleep(0.01)
        runs = [running for running in runs if next(running, ENDED) is not ENDED]
    return writers


def check_answered(server: RunningServer, connect: Connect, writers: list[Writer]) -> None:
    for writer in writers:
        client = connect(server, writer.device)
        for page, sent in writer.sent.items():
            found = bytes(client.pread(PAGE, page * PAGE))
            assert found == sent or (page not in writer.answered and found == bytes(PAGE))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_answers_no_request_with_an_error(loaded: RunningServer, number: int) -> None:
    writers = written_until_stop(loaded, number)
    assert {error for writer in writers for error in writer.errors} <= {errno.ENOTCONN}
    assert any(len(writer.answered) < PAGES for writer in writers)
    assert loaded.wait() == 0


def test_everything_answered_is_there_after_a_stop(loaded: RunningServer, connect: Connect) -> None:
    writers = written_until_stop(loaded, signal.SIGTERM)
    loaded.wait()
    loaded.start()
    check_answered(loaded, connect, writers)


def test_stop_while_a_shrink_runs(loaded: RunningServer, connect: Connect) -> None:
    content = random.Random(5).randbytes(16 * MIB)
    connect(loaded, "g1").pwrite(content, PAGE)
    with subprocess.Popen(
        [PRESWAPCTL, f"--runtime-dir={loaded.runtime_dir}", "shrink", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as shrink:
        loaded.wait_for_line("shrink from ")
        assert loaded.stop() == 0
        assert shrink.wait(30) in {0, 3}
    loaded.start()
    assert bytes(connect(loaded, "g1").pread(len(content), PAGE)) == content


def test_stop_without_a_free_descriptor(start_server: StartServer) -> None:
    """It tells the service manager, which it cannot, and nobody waits for a second signal."""
    server = start_server(env={"NOTIFY_SOCKET": "@preswapd-test-nobody"})
    _, most = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, most))
    server.stop()
    server.start()


def test_clean_stop_with_nothing_in_tmem(server: RunningServer, connect: Connect) -> None:
    """The disk has all of it: shared memory may go, also without a reboot of the host."""
    content = random.Random(6).randbytes(MIB)
    client = connect(server)
    client.pwrite(content, BEHIND_ZONE)
    server.ctl("shrink", "0")
    assert server.stop() == 0
    for path in server.shm_dir.iterdir():
        path.unlink()
    server.start()
    assert bytes(connect(server).pread(MIB, BEHIND_ZONE)) == content
