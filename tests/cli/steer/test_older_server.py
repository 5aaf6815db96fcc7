# SPDX-License-Identifier: BSD-3-Clause
"""preswapctl was replaced, the server runs on: it does not know `wait`, `/v1/server`, `idle`."""

import os
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from preswapd.api.client import Client
from preswapd.api.messages import ServerFacts
from preswapd.cli.steer.following import set_and_fit
from preswapd.control.http import ControlServer
from preswapd.control.routes import Api, Body, Followed, Reply, Request
from preswapd.errors import PartialError, RefusedError, UsageError
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.running import MIB, Running
from tests.running import PRESWAPCTL, run

LIMIT = "preswap.test.pool_limit"
FACTS = ServerFacts(os.getpid(), "1.40", 1, "", True, "", "/run/x", "/dev/shm/x", "/var/lib/x")
NOISE = random.Random(3).randbytes(6 * MIB)


class OlderApi(Api):
    """As it was when clients moved the pages that a limit leaves no room for."""

    def __init__(self, running: Running) -> None:
        super().__init__(running.instance, FACTS)
        newer = [
            *("/v1/server", "/v1/sync", "/v1/devices/g1/trim"),
            *("/v1/devices/g1/save", "/v1/devices/g1/restore"),
            *(f"/v1{of}/{what}" for of in ("", "/devices/g1") for what in ("ages", "advise")),
        ]
        self.routes = [route for route in self.routes if not any(map(route[1].fullmatch, newer))]

    def set(self, request: Request) -> Reply:
        body = Body(request.body, "key", "value")
        key, devices = body.text("key"), dict(self.instance.devices)
        return Reply(200, {key: self.instance.sysctl.set(key, body.value("value"), devices)})

    def shrink(self, request: Request) -> Reply | Followed:
        Body(request.body, "pages", "device", "wait")
        return super().shrink(request)

    def mkswap(self, request: Request, name: str) -> Reply:
        return super().mkswap(Request({}, request.body), name)


@pytest.fixture
def older(tmp_path: Path) -> Iterator[Client]:
    with Running(tmp_path) as running, socket.socket(socket.AF_UNIX) as listening:
        running.paths.runtime_dir.mkdir()
        running.settings = replace(running.settings, pool_size=16 * MIB)
        running.open(DeviceSpec("g1", 8 * MIB))
        connection = running.device.connect()
        connection.pwrite(NOISE, PAGE)
        listening.bind(str(running.paths.control_socket))
        listening.listen()
        server = ControlServer(listening, OlderApi(running), lambda priority, text: None)
        server.start()
        yield Client(running.paths.control_socket)
        shut_down(server, running.paths.control_socket)


def shut_down(server: ControlServer, path: Path) -> None:
    """It looks whether it is shut down when a client has come."""
    asking = threading.Thread(target=server.shutdown)
    asking.start()
    while asking.is_alive():
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        asking.join(0.05)


def test_facts_have_their_older_name(older: Client) -> None:
    assert older.facts() == FACTS


def test_mkswap_is_forced(older: Client) -> None:
    with pytest.raises(RefusedError, match="a client is connected"):
        older.mkswap("g1")
    older.mkswap("g1", force=True)


def test_setting_is_set(older: Client) -> None:
    assert set_and_fit(older, "preswap.test.frozen", "1") == 1
    assert set_and_fit(older, LIMIT, "12M") == 12 * MIB
    assert older.sysctl()["preswap.test.frozen"] == 1


def test_limit_below_what_is_stored_says_who_moves_no_page(older: Client) -> None:
    with pytest.raises(PartialError, match="this server is older"):
        set_and_fit(older, LIMIT, "4M")
    assert older.sysctl()[LIMIT] == 4 * MIB


def test_bad_value_is_told_as_ever(older: Client) -> None:
    with pytest.raises(UsageError, match="at least 4M"):
        set_and_fit(older, LIMIT, "1")


def test_what_an_older_server_cannot_do_is_refused(older: Client) -> None:
    with pytest.raises(RefusedError, match="this server is older"):
        older.trim("g1")
    with pytest.raises(RefusedError, match="this server is older"), older.save("g1"):
        pass
    with pytest.raises(RefusedError, match="this server is older"):
        older.restore("g1", iter([b"preswapd-save 1\n"]))
    with pytest.raises(RefusedError, match="this server is older"), older.sync():
        pass
    with pytest.raises(RefusedError, match="this server is older"):
        older.begin_sync("g1")


@pytest.mark.parametrize("device", [None, "g1"])
def test_ages_are_unknown_to_an_older_server(older: Client, device: str | None) -> None:
    with pytest.raises(RefusedError, match="this server is older than preswapctl"):
        older.ages(device)
    with pytest.raises(RefusedError, match="this server is older than preswapctl"):
        older.advise(device)
    with pytest.raises(RefusedError, match="this server is older than preswapctl"):
        older.begin_idle_shrink(60, device)
    with (
        pytest.raises(RefusedError, match="this server is older than preswapctl"),
        older.idle_shrink(60, device),
    ):
        pass
    assert older.begin_shrink(1 << 20).idle is None


@pytest.mark.parametrize(
    "command", [["ages"], ["ages", "g1"], ["advise"], ["shrink", "--idle", "30m"]]
)
def test_command_that_an_older_server_does_not_know(older: Client, command: list[str]) -> None:
    done = run([PRESWAPCTL, f"--runtime-dir={older.socket_path.parent}", *command])
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.count("\n") == 1
    assert "this server is older than preswapctl and cannot do that: restart it" in done.stderr
