# SPDX-License-Identifier: BSD-3-Clause
"""A server keeps which device's virtual machine is parked, as long as that can be true."""

import json
import os
from collections.abc import Callable
from typing import Any

import nbd
import pytest

from preswapd.api.client import Client
from preswapd.api.messages import Parked
from preswapd.errors import RefusedError, UsageError
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected
from tests.running import RunningServer, wait_until

End = Callable[[RunningServer], Any]
VM = Parked(128 << 20, 1 << 30, "/run/vm1.qmp", os.getpid())


@pytest.fixture
def client(server: RunningServer) -> nbd.NBD:
    return connected(server, "g1")


@pytest.fixture
def api(server: RunningServer, client: nbd.NBD) -> Client:
    found = Client(server.control_socket)
    found.park("g1", VM)
    return found


def left(server: RunningServer) -> int:
    return int(server.json_stats()["devices"]["g1"]["parked"])


def test_it_is_told(server: RunningServer, api: Client) -> None:
    kept = api.parked("g1")
    assert kept is not None
    assert (kept.left, kept.whole, kept.qmp, kept.pid) == (VM.left, VM.whole, VM.qmp, VM.pid)
    assert kept.since > 0
    assert left(server) == VM.left
    api.unpark("g1")
    assert (left(server), api.parked("g1")) == (0, None)
    api.unpark("g1")


def test_list_shows_it(server: RunningServer, api: Client) -> None:
    head, row = server.ctl("list").stdout.splitlines()
    assert (head.split()[-1], row.split()[-1]) == ("PARKED", "128M")
    assert server.ctl("list", "-o", "NAME,PARKED", "--bytes", "--noheadings").stdout.split() == [
        "g1",
        str(VM.left),
    ]
    assert json.loads(server.ctl("--json", "list").stdout)["devices"][0]["parked"] == VM.left
    api.unpark("g1")
    assert "PARKED" not in server.ctl("list").stdout
    assert server.ctl("list", "-o", "PARKED", "--noheadings").stdout.split() == ["-"]


@pytest.mark.parametrize("end", [RunningServer.kill, RunningServer.stop])
def test_restart_keeps_it(server: RunningServer, api: Client, client: nbd.NBD, end: End) -> None:
    end(server)
    server.start()
    assert left(server) == VM.left
    again = connected(server, "g1")
    assert left(server) == VM.left
    again.pwrite(bytes(PAGE), BEHIND_ZONE)
    again.shutdown()
    wait_until(lambda: left(server) == 0, "the device to be without a client")
    server.restart()
    assert left(server) == 0


def test_end_of_its_client_is_its_own(server: RunningServer, api: Client, client: nbd.NBD) -> None:
    client.shutdown()
    wait_until(lambda: left(server) == 0, "the device to be without a client")
    connected(server, "g1")
    assert left(server) == 0


def test_another_client_beside_it_is_not(server: RunningServer, api: Client) -> None:
    connected(server, "g1").shutdown()
    assert left(server) == VM.left


def test_device_without_a_client_is_not_parked(server: RunningServer) -> None:
    api = Client(server.control_socket)
    with pytest.raises(RefusedError, match="no client is connected to g1"):
        api.park("g1", VM)
    assert api.parked("g1") is None
    server.restart()
    assert left(server) == 0


def test_mistakes_are_told(server: RunningServer, api: Client) -> None:
    for wrong in (Parked(0, 1, "/q"), Parked(2, 1, "/q"), Parked(1, 1, "/q", 1 << 40)):
        with pytest.raises(UsageError, match="left must be"):
            api.park("g1", wrong)
    with pytest.raises(UsageError, match="no device"):
        api.park("g9", VM)
    assert left(server) == VM.left


def test_removed_device_takes_it_along(server: RunningServer, api: Client, client: nbd.NBD) -> None:
    api.remove("g1", force=True)
    api.create("g1", 64 << 20)
    assert left(server) == 0
