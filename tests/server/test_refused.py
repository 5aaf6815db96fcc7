# SPDX-License-Identifier: BSD-3-Clause
"""A device that is not served: what its client gets, and what operators see, ask and mend."""

import json
from collections.abc import Iterator

import nbd
import pytest

from tests.clients import BEHIND_ZONE, Connect, clients
from tests.conftest import StartServer
from tests.running import RunningServer, run

CONTENT = bytes(range(256)) * 16


@pytest.fixture
def connect() -> Iterator[Connect]:
    with clients() as make:
        yield make


@pytest.fixture
def half(start_server: StartServer, connect: Connect) -> RunningServer:
    """g1 is served, g2 is not: its disk file was moved away."""
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    for name in ("g1", "g2"):
        client = connect(server, name)
        client.pwrite(CONTENT, BEHIND_ZONE)
        client.shutdown()
    server.kill()
    path = server.paths.disk_file("g2")
    path.rename(path.with_name("away"))
    server.start()
    return server


def put_back(server: RunningServer) -> None:
    path = server.paths.disk_file("g2")
    path.with_name("away").rename(path)


def test_log_says_so_in_a_line(half: RunningServer) -> None:
    line = half.wait_for_line("g2 is not served")
    assert f"the disk file {half.paths.disk_file('g2')} is missing" in line
    assert line.endswith("put that right, then restart the server")


def test_client_of_it_is_refused_and_gets_nobody_elses_disk(
    half: RunningServer, connect: Connect
) -> None:
    """Neither by its name nor by none."""
    assert bytes(connect(half, "g1").pread(len(CONTENT), BEHIND_ZONE)) == CONTENT
    for name in ("g2", ""):
        with pytest.raises(nbd.Error):
            connect(half, name)


def test_operator_sees_it(half: RunningServer) -> None:
    done = half.ctl("list")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["g1"]
    assert f"g2 is not served: the disk file {half.paths.disk_file('g2')}" in done.stderr
    listed = json.loads(half.ctl("--json", "list").stdout)
    assert [device["name"] for device in listed["refused"]] == ["g2"]
    doctor = half.ctl("doctor", check=False).stdout
    assert "device g2: it is not served: the disk file" in doctor


@pytest.mark.parametrize(
    "command",
    [
        ["create", "g2", "64M"],
        ["remove", "g2", "--yes"],
        ["swapoff", "g2", "--yes"],
        ["trim", "g2", "--yes"],
        ["mkswap", "g2", "--yes"],
        ["shrink", "0", "g2"],
        ["sync", "g2"],
    ],
    ids=" ".join,
)
def test_operator_cannot_change_it(half: RunningServer, command: list[str]) -> None:
    done = half.ctl(*command, check=False)
    assert done.returncode == 4
    assert "g2 is not served: the disk file" in done.stderr


def test_it_is_served_once_it_is_mended(half: RunningServer, connect: Connect) -> None:
    put_back(half)
    half.restart()
    for name in ("g1", "g2"):
        assert bytes(connect(half, name).pread(len(CONTENT), BEHIND_ZONE)) == CONTENT
    assert half.ctl("list").stderr == ""


def test_reboot_would_lose_it_and_a_sync_says_so(half: RunningServer) -> None:
    done = half.ctl("sync", check=False)
    assert done.returncode == 5
    assert "g2 is not served" in done.stderr
    half.stop()
    done = run([*half.command(), "--sync-and-exit"])
    assert done.returncode == 5
    assert "would lose pages: g2 is not served: the disk file" in done.stderr
