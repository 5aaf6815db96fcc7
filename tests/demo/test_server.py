# SPDX-License-Identifier: BSD-3-Clause
"""The server of the demonstration: its lives, what is told of its end, what it leaves behind."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbd
import pytest

from preswapd.demo.checks import DemoError
from preswapd.demo.server import ServerError, TemporaryServer, temporary
from preswapd.units import PAGE_SIZE

MIB = 1 << 20
LEAVES = """
import sys, time
from preswapd.demo.server import temporary
with temporary(sys.argv[1]) as folder:
    print(folder, flush=True)
    time.sleep(60)
"""
PAGE = bytes(range(256)) * (PAGE_SIZE // 256)


@pytest.fixture
def server() -> Iterator[TemporaryServer]:
    with TemporaryServer(16 * MIB, "demo", 16 * MIB) as server:
        yield server


def connected(server: TemporaryServer) -> nbd.NBD:
    client = nbd.NBD()
    client.connect_uri(server.nbd_uri("demo"))
    return client


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def test_pages_stay_between_two_lives(server: TemporaryServer) -> None:
    server.start()
    connected(server).pwrite(PAGE, PAGE_SIZE)
    server.kill()
    server.start()
    assert bytes(connected(server).pread(PAGE_SIZE, PAGE_SIZE)) == PAGE
    assert [line.split()[0] for line in server.lines].count("ready:") == 2


def test_directories_go_with_it() -> None:
    with TemporaryServer(16 * MIB, "demo", 16 * MIB) as server:
        server.start()
        places = [server.paths.runtime_dir.parent, server.paths.state_dir.parent]
        pid = server.pid
        assert all(place.exists() for place in places)
    assert not any(place.exists() for place in [*places, Path(f"/proc/{pid}")])


def test_start_that_is_refused_is_told_with_its_log(server: TemporaryServer) -> None:
    server.extra = ["--compress=none", "--threads=0"]
    with pytest.raises(ServerError, match="did not say 'ready': it ended with status 2") as caught:
        server.start()
    assert "--threads" in notes(caught.value)


def test_unexpected_end_is_told_with_its_log(server: TemporaryServer) -> None:
    server.start()
    server.check_alive()
    server.running.kill()
    with pytest.raises(ServerError, match="ended with signal SIGKILL") as caught:
        server.check_alive()
    assert "ready" in notes(caught.value)


def test_what_a_server_must_not_be_asked_for_now(server: TemporaryServer) -> None:
    with pytest.raises(ServerError, match="does not run"):
        server.stop()
    server.start()
    with pytest.raises(ServerError, match="runs already"):
        server.start()
    with pytest.raises(ServerError, match="had not ended after 0 s") as caught:
        server.wait(0.1)
    assert "ready" in notes(caught.value)
    assert server.stop() == 0


def test_command_that_fails_is_told_by_its_last_line(server: TemporaryServer) -> None:
    server.start()
    assert server.run("list").count("demo") == 1
    with pytest.raises(DemoError, match=r"swapoff nothing --yes ended with status 2: .*nothing"):
        server.run("swapoff", "nothing", "--yes")


def test_command_that_has_not_ended_goes_with_its_block(server: TemporaryServer) -> None:
    server.start()
    with server.control("stats", "--watch", "60") as command:
        assert command.running()
    assert not command.running()


def test_directory_of_one_that_was_killed_goes_and_no_other(tmp_path: Path) -> None:
    name = str(tmp_path)
    begun = [sys.executable, "-c", LEAVES, name]
    killed = subprocess.Popen(begun, stdout=subprocess.PIPE)
    assert killed.stdout is not None
    left = Path(killed.stdout.readline().decode().strip())
    others = tmp_path / "preswapd-demo-of-others"
    others.mkdir()
    with temporary(name) as first:
        assert left.exists()
        killed.kill()
        killed.communicate()
        with temporary(name) as second:
            assert set(tmp_path.iterdir()) == {Path(first), Path(second), others}
    assert list(tmp_path.iterdir()) == [others]


def test_directory_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "preswapd-demo-left"
    left.mkdir()
    (left / "lock").touch()
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with temporary(str(tmp_path)):
        assert left.exists()
    monkeypatch.undo()
    with temporary(str(tmp_path)):
        assert not left.exists()
