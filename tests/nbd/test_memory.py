# SPDX-License-Identifier: BSD-3-Clause
"""The memory that requests take beside the pool: bounded, whatever clients ask for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.server.buffers import LARGEST_REQUEST, WORKER_BYTES
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect
from tests.conftest import StartServer
from tests.nbd.conftest import MIB
from tests.running import IS_SANITIZED, RunningServer, wait_for

THREADS = 16
DEVICES = ("g1", "g2", "g3", "g4")
CLIENTS = len(DEVICES)
# Python's own, that of a thread, and what its allocator does not give back.
CLIENT_REST = 2 * MIB


@pytest.fixture
def server(start_server: StartServer) -> RunningServer:
    devices = dict.fromkeys(DEVICES, "256M")
    return start_server(devices=devices, extra=[f"--threads={THREADS}"])


@pytest.fixture
def four(server: RunningServer, connect: Connect) -> Iterator[list[Any]]:
    """They leave with nothing in flight: nbdkit before 1.33.10 would abort."""
    made = [connect(server, device) for device in DEVICES]
    yield made
    for client in made:
        while client.aio_in_flight():
            client.poll(-1)


def private_memory(server: RunningServer) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def at_once(clients: list[Any], server: RunningServer, *, write: bool, length: int) -> int:
    """All that all workers can have in flight; the most memory that was seen meanwhile."""
    buffer = nbd.Buffer.from_bytearray(bytearray(b"x" * length))  # of all: nobody looks at it
    for client in clients:
        for number in range(THREADS):
            offset = PAGE + number * MIB
            send = client.aio_pwrite if write else client.aio_pread
            send(buffer, offset, completion=lambda error: 1)
    most = 0
    while any(client.aio_in_flight() for client in clients):
        for client in clients:
            if client.aio_in_flight():
                client.poll(0)
        most = max(most, private_memory(server))
    return most


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_largest_requests_take_what_is_set_aside_for_them(
    server: RunningServer, four: list[Any], write: bool
) -> None:
    before = private_memory(server)
    most = at_once(four, server, write=write, length=LARGEST_REQUEST)
    assert most - before <= CLIENTS * (THREADS * WORKER_BYTES + CLIENT_REST)


@pytest.mark.parametrize("write", [False, True], ids=["read", "write"])
def test_longer_requests_take_nothing_that_stays(
    server: RunningServer, four: list[Any], write: bool
) -> None:
    """16 workers of 4 clients would otherwise keep 2 GiB."""
    before = private_memory(server)
    most = at_once(four, server, write=write, length=32 * MIB)
    assert most - before <= CLIENTS * 3 * 32 * MIB
    assert private_memory(server) - before <= CLIENTS * (MIB * THREADS + CLIENT_REST)


@pytest.mark.skipif(IS_SANITIZED, reason="a sanitizer keeps memory that was freed")
def test_buffers_go_with_their_client(server: RunningServer, connect: Connect) -> None:
    before = private_memory(server)
    client = connect(server, "g1")
    at_once([client], server, write=False, length=LARGEST_REQUEST)
    assert private_memory(server) - before >= LARGEST_REQUEST
    client.shutdown()
    wait_for(lambda: private_memory(server) - before, lambda more: more < CLIENT_REST + 8 * MIB)
