# SPDX-License-Identifier: BSD-3-Clause
"""A client that lost its connection comes back: what is left of the old one changes nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect
from tests.conftest import StartServer
from tests.ports import free_port
from tests.running import NO_SANITIZER, PATIENCE, RunningServer

GIB = 1 << 30
CUT_OFF = "a client of g1 is cut off: one that came after it has written since"
# A device so large that a trim of an eighth of it takes 0.07 s.
LARGE = "32G"


@pytest.fixture(params=["unix", "tcp"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def uri(way: str, port: int) -> Callable[[RunningServer, str], str]:
    def of(server: RunningServer, export: str) -> str:
        return f"nbd://127.0.0.1:{port}/{export}" if way == "tcp" else server.nbd_uri(export)

    return of


def client_of(uri: str) -> Any:
    client = nbd.NBD()
    client.connect_uri(uri)
    return client


class Returning:
    """A client that connects again where it has to: over a Unix socket, before nbdkit 1.34, all
    connections of a process are cut off together."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client = client_of(uri)

    def write(self, data: bytes) -> None:
        self.do(lambda: self.client.pwrite(data, BEHIND_ZONE))

    def read(self) -> bytes:
        return bytes(self.do(lambda: self.client.pread(PAGE, BEHIND_ZONE)))

    def do(self, ask: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except nbd.Error:
                assert time.monotonic() < end
                with suppress(nbd.Error):
                    self.client = client_of(self.uri)


def sent(client: Any) -> None:
    """All that was asked for is in the socket, and answers are not waited for."""
    while client.aio_get_direction() & nbd.AIO_DIRECTION_WRITE:
        client.poll(10)
    time.sleep(0.05)


def test_request_that_begins_late(
    start_server: StartServer, port: int, uri: Callable[[RunningServer, str], str]
) -> None:
    """One worker has long trims before it; its client has sent it again by then, and more."""
    options = [f"--listen=127.0.0.1:{port}", "--threads=1"]
    server = start_server(devices={"g1": LARGE}, extra=options)
    where = uri(server, "g1")
    old = client_of(where)
    # They take a second, unless they are dropped: on a busy machine another client needs a part of
    # that to connect.
    trims = 2 * [*range(1, 8)]
    for at in trims:
        old.aio_trim(4 * GIB - PAGE, at * 4 * GIB)
    old.aio_pwrite(b"1" * PAGE, BEHIND_ZONE)
    sent(old)
    answers = old.aio_in_flight()
    fresh = Returning(where)
    fresh.write(b"1" * PAGE)
    fresh.write(b"2" * PAGE)
    assert answers == len(trims) + 1, "the trims were over before anything was sent again"
    server.wait_for_line(CUT_OFF)
    assert fresh.read() == b"2" * PAGE
    while not old.aio_is_dead() and not old.aio_is_closed():
        try:
            old.poll(-1)
        except nbd.Error:
            break


OLD = """
import sys, nbd
old = nbd.NBD()
old.connect_uri(sys.argv[1])
old.pwrite(b"1" * 4096, 8 << 20)
print("ready", flush=True)
for line in sys.stdin:
    try:
        old.pwrite(b"1" * 4096, 8 << 20)
    except nbd.Error as error:
        print("dropped" if old.aio_is_dead() or old.aio_is_closed() else f"answered: {error}")
        break
    print("written", flush=True)
"""


class OtherProcess:
    """A client that writes a page, and again for each line."""

    def __init__(self, uri: str) -> None:
        command = [sys.executable, "-c", OLD, uri]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self.said() == "ready"

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def write(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.said()

    def close(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture
def other() -> Iterator[Callable[[str], OtherProcess]]:
    made = []

    def make(uri: str) -> OtherProcess:
        made.append(OtherProcess(uri))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_older_client_is_dropped_without_an_answer(
    start_server: StartServer,
    port: int,
    uri: Callable[[RunningServer, str], str],
    other: Callable[[str], OtherProcess],
) -> None:
    """No error, which a guest would take for one of its disk; others are left alone."""
    server = start_server(devices={"g1": "64M", "g2": "64M"}, extra=[f"--listen=127.0.0.1:{port}"])
    old, bystander = other(uri(server, "g1")), client_of(uri(server, "g2"))
    assert old.write() == "written"
    fresh = client_of(uri(server, "g1"))
    assert bytes(fresh.pread(PAGE, BEHIND_ZONE)) == b"1" * PAGE
    assert old.write() == "written"
    fresh.pwrite(b"2" * PAGE, BEHIND_ZONE)
    assert old.write() == "dropped"
    assert bytes(fresh.pread(PAGE, BEHIND_ZONE)) == b"2" * PAGE
    fresh.pwrite(b"3" * PAGE, BEHIND_ZONE)
    bystander.pwrite(b"4" * PAGE, BEHIND_ZONE)
    assert CUT_OFF in server.log
    assert server.json_stats()["devices"]["g1"]["connections"] == 1
    for client in (fresh, bystander):
        client.shutdown()


class QemuIo:
    """One that connects again by itself, as a guest's QEMU does."""

    def __init__(self, server: RunningServer, export: str) -> None:
        node = (
            f"driver=nbd,server.type=unix,server.path={server.nbd_socket},export={export},"
            "reconnect-delay=30"
        )
        self.process = subprocess.Popen(
            ["qemu-io", "-t", "none", "--image-opts", node],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **NO_SANITIZER},
        )

    def do(self, command: str) -> str:
        """Its answer, one line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        while "bytes at offset" not in (line := self.process.stdout.readline()):
            assert line, "qemu-io has ended"
            assert "error" not in line.lower(), line
            assert "failed" not in line, line
        return line

    def close(self) -> None:
        self.process.communicate("quit\n", timeout=30)


def test_clients_that_come_back_take_turns(start_server: StartServer) -> None:
    """Each sends again what was not done, and no write is an error: so a guest that is moved while
    its source reconnects goes on at its target, though that connected first."""
    server = start_server(devices={"g1": "64M"})
    both = [QemuIo(server, "g1") for _ in range(2)]
    try:
        for number in range(6):
            client = both[number % 2]
            client.do(f"write -P {number + 1} 8M 4k")
            client.do(f"read -P {number + 1} 8M 4k")
    finally:
        for client in both:
            client.close()


def test_writable_image(start_server: StartServer, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(64 * PAGE))
    server = start_server(extra=[f"--image=disk={path}", "--writable=disk", "--threads=1"])
    old, fresh = client_of(server.nbd_uri("disk")), client_of(server.nbd_uri("disk"))
    old.pwrite(b"1" * PAGE, PAGE)
    fresh.pwrite(b"2" * PAGE, PAGE)
    with pytest.raises(nbd.Error):
        old.pwrite(b"1" * PAGE, PAGE)
    assert old.aio_is_dead() or old.aio_is_closed()
    assert bytes(connect(server, "disk").pread(PAGE, PAGE)) == b"2" * PAGE
    assert path.read_bytes()[PAGE : 2 * PAGE] == b"2" * PAGE
    assert "a client of disk is cut off" in server.log
