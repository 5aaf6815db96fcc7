# SPDX-License-Identifier: BSD-3-Clause
"""A client that was connected when the server ended, and may be coming back for its pages."""

import json
import os
from collections.abc import Callable
from typing import Any

import nbd
import pytest

from preswapd.api.client import Client
from preswapd.errors import RefusedError
from preswapd.preswap.clients import since_boot
from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected
from tests.running import RunningServer, run, wait_until

End = Callable[[RunningServer], Any]
ENDS = [RunningServer.kill, RunningServer.stop]


@pytest.fixture
def client(server: RunningServer) -> nbd.NBD:
    """It has swapped eight pages."""
    found = connected(server, "g1")
    found.pwrite(b"x" * 8 * PAGE, BEHIND_ZONE)
    return found


def device(server: RunningServer) -> dict[str, Any]:
    found: dict[str, Any] = server.json_stats()["devices"]["g1"]
    return found


def refused(server: RunningServer, *arguments: str) -> str:
    done = server.ctl(*arguments, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (4, "", 1)
    return done.stderr


@pytest.mark.parametrize("end", ENDS)
def test_client_is_awaited_until_it_is_back(
    server: RunningServer, client: nbd.NBD, end: End
) -> None:
    assert device(server)["awaited"] is False
    end(server)
    server.start()
    assert (device(server)["awaited"], device(server)["connections"]) == (True, 0)
    again = connected(server, "g1")
    assert device(server)["awaited"] is False
    assert bytes(again.pread(PAGE, BEHIND_ZONE)) == b"x" * PAGE


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("command", ["remove", "mkswap"])
def test_nothing_is_taken_from_a_client_that_may_come_back(
    server: RunningServer, client: nbd.NBD, end: End, command: str
) -> None:
    end(server)
    server.start()
    for options in ([], ["--yes"]):
        assert "has not come back" in refused(server, command, "g1", *options)
    again = connected(server, "g1")
    assert bytes(again.pread(8 * PAGE, BEHIND_ZONE)) == b"x" * 8 * PAGE


def nbdinfo(server: RunningServer) -> None:
    """It reads what is at the beginning, too."""
    assert run(["nbdinfo", server.nbd_uri("g1")]).returncode == 0


def nbdinfo_list(server: RunningServer) -> None:
    assert run(["nbdinfo", "--list", server.nbd_uri("g1")]).returncode == 0


def partition_scan(server: RunningServer) -> None:
    client = connected(server, "g1")
    for part in zone(client.get_size() // PAGE):
        client.pread(len(part) * PAGE, part.start * PAGE)
    client.shutdown()


@pytest.mark.parametrize("look", [nbdinfo, nbdinfo_list, partition_scan])
def test_whoever_only_looks_is_not_that_client(
    server: RunningServer, client: nbd.NBD, look: Callable[[RunningServer], None]
) -> None:
    for _ in range(2):
        server.kill()
        server.start()
        look(server)
        wait_until(lambda: device(server)["connections"] == 0, "who looks to leave")
        assert device(server)["awaited"] is True
        assert "has not come back" in refused(server, "remove", "g1", "--yes")
    again = connected(server, "g1")
    assert bytes(again.pread(8 * PAGE, BEHIND_ZONE)) == b"x" * 8 * PAGE
    again.shutdown()
    wait_until(lambda: device(server)["connections"] == 0, "the guest to leave")
    wait_until(lambda: not device(server)["awaited"], "it to be known")
    server.ctl("remove", "g1", "--yes")


def test_idle_guest_that_ends_is_not_awaited_any_more(
    server: RunningServer, client: nbd.NBD
) -> None:
    """QEMU comes back to flush its disk, and has nothing to ask for."""
    server.kill()
    server.start()
    again = connected(server, "g1")
    again.flush()
    again.shutdown()
    wait_until(lambda: device(server)["connections"] == 0, "QEMU to leave")
    wait_until(lambda: not device(server)["awaited"], "it to be known")
    assert not (server.shm_dir / "g1.client").exists()
    server.ctl("remove", "g1", "--yes")


@pytest.mark.parametrize("change", [Client.remove, Client.mkswap])
def test_server_itself_refuses(
    server: RunningServer, client: nbd.NBD, change: Callable[[Client, str], None]
) -> None:
    server.kill()
    server.start()
    with pytest.raises(RefusedError, match="has not come back"):
        change(Client(server.control_socket), "g1")
    assert device(server)["awaited"] is True


def test_guest_that_has_ended_meanwhile(server: RunningServer, client: nbd.NBD) -> None:
    server.kill()
    server.start()
    server.ctl("remove", "g1", "--force")
    assert server.json_stats()["devices"] == {}
    assert list(server.shm_dir.glob("g1*")) == []
    server.ctl("create", "g1", "64M")
    server.restart()
    assert device(server)["awaited"] is False


def test_swapoff_warns_of_it(server: RunningServer, client: nbd.NBD) -> None:
    server.kill()
    server.start()
    assert "has not come back" in server.ctl("swapoff", "g1", "--yes").stderr


def test_client_that_left_is_not_awaited(server: RunningServer, client: nbd.NBD) -> None:
    second = connected(server, "g1")
    client.shutdown()
    second.shutdown()
    wait_until(lambda: device(server)["connections"] == 0, "the clients to leave")
    server.kill()
    server.start()
    assert device(server)["awaited"] is False
    server.ctl("remove", "g1", "--yes")


def test_one_of_two_clients_left(server: RunningServer, client: nbd.NBD) -> None:
    second = connected(server, "g1")
    second.shutdown()
    wait_until(lambda: device(server)["connections"] == 1, "the second client to leave")
    server.kill()
    server.start()
    assert device(server)["awaited"] is True


def test_long_absence_shows_until_a_request_comes(server: RunningServer, client: nbd.NBD) -> None:
    """QEMU reconnects for a guest that it has paused, and asks for nothing."""
    assert device(server)["away"] == 0
    server.kill()
    ended = since_boot() - 400 * 10**9
    os.utime(server.shm_dir / "g1.client", ns=(ended, ended))
    server.start()
    again = connected(server, "g1")
    assert 400 <= device(server)["away"] < 500
    doctor = json.loads(server.ctl("--json", "doctor", check=False).stdout)["checks"]
    (told,) = (check for check in doctor if "there was no server" in check["text"])
    assert (told["status"], "cont" in told["mend"]) == ("fix", True)
    again.pread(PAGE, BEHIND_ZONE)
    assert device(server)["away"] == 0
