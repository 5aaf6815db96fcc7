# SPDX-License-Identifier: BSD-3-Clause
"""`create`, `remove` and `mkswap`."""

import json
from typing import Any

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.cli.conftest import at_a_terminal
from tests.clients import BEHIND_ZONE, connected
from tests.running import RunningServer, wait_until


@pytest.fixture
def client(server: RunningServer) -> nbd.NBD:
    found = connected(server, "g1")
    return found


def device(server: RunningServer) -> dict[str, Any]:
    found: dict[str, Any] = server.json_stats()["devices"]["g1"]
    return found


def swap_header(client: nbd.NBD) -> tuple[bytes, bytes]:
    """The signature and the label."""
    page = bytes(client.pread(PAGE, 0))
    return page[-10:], page[1052:1068].rstrip(b"\0")


def names(server: RunningServer) -> set[str]:
    return set(server.json_stats()["devices"])


def test_created_device_is_served(server: RunningServer) -> None:
    server.ctl("create", "g2", "1M")
    client = connected(server, "g2")
    assert client.get_size() == 1 << 20
    assert swap_header(client) == (b"SWAPSPACE2", b"g2")


def test_created_device_outlives_restarts(server: RunningServer) -> None:
    server.ctl("create", "g2", "1M")
    server.restart()
    server.kill()
    server.start()
    assert names(server) == {"g1", "g2"}


def test_removed_device_stays_away(server: RunningServer) -> None:
    server.ctl("create", "g2", "1M")
    server.ctl("remove", "g2")
    assert names(server) == {"g1"}
    assert not list(server.state_dir.glob("g2*"))
    assert not list(server.shm_dir.glob("g2*"))
    server.restart()
    assert names(server) == {"g1"}


def test_removed_but_configured_device_comes_back_unknown(
    server: RunningServer, client: nbd.NBD
) -> None:
    client.pwrite(b"x" * PAGE, BEHIND_ZONE)
    client.shutdown()
    server.ctl("remove", "g1", "--yes")
    server.restart()
    again = connected(server, "g1")
    with pytest.raises(nbd.Error, match="EIO"):
        again.pread(PAGE, BEHIND_ZONE)


def test_name_that_is_taken(server: RunningServer) -> None:
    done = server.ctl("create", "g1", "1M", check=False)
    assert (done.returncode, done.stdout) == (4, "")


@pytest.mark.parametrize("size", ["4K", "0", "1000000", "65535B"])
def test_bad_size(server: RunningServer, size: str) -> None:
    assert server.ctl("create", "g2", size, check=False).returncode == 2
    assert names(server) == {"g1"}


@pytest.mark.parametrize("command", ["remove", "mkswap"])
def test_connected_device_is_left_alone(
    server: RunningServer, client: nbd.NBD, command: str
) -> None:
    client.pwrite(b"x" * PAGE, BEHIND_ZONE)
    done = server.ctl(command, "g1", check=False)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert bytes(client.pread(PAGE, BEHIND_ZONE)) == b"x" * PAGE


def test_device_with_pages_is_removed_when_somebody_agrees(
    server: RunningServer, client: nbd.NBD
) -> None:
    client.pwrite(b"x" * 3 * PAGE, BEHIND_ZONE)
    client.shutdown()
    wait_until(lambda: not device(server)["connections"], "the client to leave")
    for command in ("remove", "mkswap"):
        done = server.ctl(command, "g1", check=False)
        assert (done.returncode, done.stdout) == (4, "")
        assert "g1 of default holds 3 pages (12K)" in done.stderr
        assert "--yes" in done.stderr
    assert device(server)["held_pages"] == 3
    server.ctl("shrink", "1", "g1")
    assert device(server)["held_pages"] == 3
    server.ctl("remove", "g1", "--yes")
    assert names(server) == set()


@pytest.mark.parametrize(("answer", "status"), [("n\n", 4), ("y\n", 0)])
def test_remove_asks_at_a_terminal(
    server: RunningServer, client: nbd.NBD, answer: str, status: int
) -> None:
    client.pwrite(b"x" * PAGE, BEHIND_ZONE)
    done, said = at_a_terminal(server, answer, "remove", "g1")
    assert done == status
    assert "g1 of default holds 1 page (4K) and has a client connected" in said
    assert names(server) == ({"g1"} if status else set())


@pytest.mark.parametrize("command", ["remove", "mkswap"])
def test_guest_that_may_come_back_since_the_question_loses_nothing(
    server: RunningServer, client: nbd.NBD, command: str
) -> None:
    client.pwrite(b"x" * PAGE, BEHIND_ZONE)

    def restart() -> None:
        server.kill()
        server.start()

    done, said = at_a_terminal(server, "y\n", command, "g1", meanwhile=restart)
    assert (done, "has not come back" in said) == (4, True)
    assert bytes(connected(server, "g1").pread(PAGE, BEHIND_ZONE)) == b"x" * PAGE


def test_guest_that_came_since_the_question_loses_nothing(
    server: RunningServer, client: nbd.NBD
) -> None:
    client.pwrite(b"x" * PAGE, BEHIND_ZONE)
    client.shutdown()
    wait_until(lambda: not device(server)["connections"], "the client to leave")
    came: list[nbd.NBD] = []
    done, said = at_a_terminal(
        server, "y\n", "remove", "g1", meanwhile=lambda: came.append(connected(server, "g1"))
    )
    assert (done, "has connected since the question" in said) == (4, True)
    assert bytes(came[0].pread(PAGE, BEHIND_ZONE)) == b"x" * PAGE


def test_remove_under_a_client_that_was_overruled(server: RunningServer, client: nbd.NBD) -> None:
    server.ctl("remove", "g1", "--yes")
    with pytest.raises(nbd.Error):
        client.pread(PAGE, 0)
    assert names(server) == set()


def test_mkswap_writes_header_and_label(server: RunningServer, client: nbd.NBD) -> None:
    client.pwrite(bytes(PAGE), 0)
    server.ctl("mkswap", "g1", "--yes")
    assert swap_header(client) == (b"SWAPSPACE2", b"g1")


def test_mkswap_forgets_the_pages(server: RunningServer, client: nbd.NBD) -> None:
    client.pwrite(b"x" * 2 * PAGE, BEHIND_ZONE - PAGE)
    client.pwrite(b"x" * PAGE, BEHIND_ZONE + PAGE, flags=nbd.CMD_FLAG_FUA)
    server.ctl("mkswap", "g1", "--yes")
    for page in (-1, 0, 1):
        with pytest.raises(nbd.Error, match="EIO"):
            client.pread(PAGE, BEHIND_ZONE + page * PAGE)
    device = server.json_stats()["devices"]["g1"]
    assert (device["preswap_pages"], device["disk_pages"], device["unknown_reads"]) == (0, 1, 3)


def test_new_device_has_a_header(client: nbd.NBD) -> None:
    assert swap_header(client) == (b"SWAPSPACE2", b"g1")


def test_json(server: RunningServer) -> None:
    created = json.loads(server.ctl("--json", "create", "g2", "1M").stdout)
    assert (created["name"], created["size"]) == ("g2", 1 << 20)
    assert json.loads(server.ctl("--json", "remove", "g2").stdout) == {"name": "g2"}
