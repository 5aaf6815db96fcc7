# SPDX-License-Identifier: BSD-3-Clause
"""Sockets that cannot be had at the start, or are removed later: guests find the server again."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import nbd
import pytest

from preswapd.server.sockets import bind_tcp
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected, discard
from tests.conftest import StartServer
from tests.running import RunningServer, wait_until
from tests.tls import connected_to, with_key, write_keys

DATA = b"page" * 1024


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """A port of another program."""
    with bind_tcp("127.0.0.1", 0) as found:
        yield found


@pytest.fixture
def idle(start_server: StartServer) -> RunningServer:
    """A server that was not started, in a runtime directory that is there."""
    server = start_server(start=False)
    server.runtime_dir.mkdir(mode=0o700)
    return server


def over_tcp(port: int) -> nbd.NBD:
    client = nbd.NBD()
    client.connect_tcp("127.0.0.1", str(port))
    return client


def launched_with(server: RunningServer, *passed: socket.socket) -> None:
    """As systemd does it: the sockets are there before the server."""
    numbers = [sock.fileno() for sock in passed]
    moved = " ".join(f"{3 + place}<&{number}" for place, number in enumerate(numbers))
    script = f'exec {moved}; export LISTEN_PID=$$ LISTEN_FDS={len(numbers)}; exec "$@"'
    server.launch(["/bin/bash", "-c", script, "bash", *server.command()], numbers)


def unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def serves(server: RunningServer) -> bool:
    with suppress(nbd.Error):
        connected(server).shutdown()
        return True
    return False


def answers_operators(server: RunningServer) -> bool:
    return server.ctl("list", check=False).returncode == 0


# --- the address of `listen` ---


def test_port_that_is_taken_is_told_and_had_later(
    start_server: StartServer, taken: socket.socket
) -> None:
    port = taken.getsockname()[1]
    server = start_server(extra=[f"--listen=127.0.0.1:{port}"])
    connected(server).pwrite(DATA, PAGE)
    assert f"and 127.0.0.1:{port}" not in server.wait_for_line("ready")
    complaint = server.wait_for_line(f"127.0.0.1, port {port}: Address already in use")
    assert f"`ss -ltnp sport = :{port}`" in complaint
    assert server.client.facts().listen_error == f"127.0.0.1, port {port}: Address already in use"
    assert f"cannot connect to 127.0.0.1:{port}" in server.ctl("doctor", check=False).stdout
    taken.close()
    server.wait_for_line(f"127.0.0.1, port {port}: guests can connect there now")
    assert bytes(over_tcp(port).pread(PAGE, PAGE)) == DATA
    assert server.client.facts().listen_error is None
    assert f"clients can connect to 127.0.0.1:{port}" in server.ctl("doctor", check=False).stdout


def test_port_that_is_had_later_has_tls(
    start_server: StartServer, taken: socket.socket, tmp_path: Path
) -> None:
    port, path = taken.getsockname()[1], write_keys(tmp_path / "keys.psk", "vm1")
    keys = ["--tls-mode=psk", f"--tls-psk-file={path}"]
    server = start_server(extra=[f"--listen=127.0.0.1:{port}", *keys])
    discard(connected(server)).pwrite(DATA, 8 << 20)
    server.wait_for_line(f"127.0.0.1, port {port}: Address already in use")
    taken.close()
    server.wait_for_line(f"127.0.0.1, port {port}: guests can connect there now")
    client = connected_to(port, with_key(path, "vm1"))
    assert bytes(client.pread(len(DATA), 8 << 20)) == DATA
    client.shutdown()
    with pytest.raises(nbd.Error):
        over_tcp(port)


def test_address_that_is_not_there(start_server: StartServer, tmp_path: Path) -> None:
    """Who has its port is not the question."""
    keys = ["--tls-mode=psk", f"--tls-psk-file={write_keys(tmp_path / 'keys.psk', 'vm1')}"]
    server = start_server(extra=["--listen=192.0.2.1:10809", *keys])
    complaint = server.wait_for_line("192.0.2.1, port 10809: Cannot assign requested address")
    assert "`ip address` shows which addresses this host has" in complaint
    doctor = server.ctl("doctor", check=False).stdout
    assert "-> `ip address` shows which addresses this host has; or change `listen`" in doctor
    assert "ss -ltnp" not in complaint + doctor


def test_address_that_systemd_passes_is_not_bound_again(
    idle: RunningServer, taken: socket.socket
) -> None:
    port = taken.getsockname()[1]
    idle.extra.append(f"--listen=127.0.0.1:{port}")
    launched_with(idle, taken)
    over_tcp(port).pwrite(DATA, PAGE)
    assert bytes(connected(idle).pread(PAGE, PAGE)) == DATA
    assert f"and 127.0.0.1:{port}" in idle.wait_for_line("ready")


# --- paths ---


def test_removed_socket_is_made_again(server: RunningServer) -> None:
    client = connected(server)
    client.pwrite(DATA, PAGE)
    mode = server.nbd_socket.stat().st_mode
    server.nbd_socket.unlink()
    wait_until(lambda: serves(server), "the socket to be made again")
    assert server.nbd_socket.stat().st_mode == mode
    assert bytes(connected(server).pread(PAGE, PAGE)) == DATA
    assert bytes(client.pread(PAGE, PAGE)) == DATA
    server.wait_for_line(f"{server.nbd_socket} was not there any more")
    assert server.stop() == 0
    assert not server.nbd_socket.exists()


def test_removed_control_socket_is_made_again(server: RunningServer) -> None:
    mode = server.control_socket.stat().st_mode
    server.control_socket.unlink()
    wait_until(lambda: answers_operators(server), "the control socket to be made again")
    assert server.control_socket.stat().st_mode == mode


def test_removed_runtime_directory_is_made_again(server: RunningServer) -> None:
    shutil.rmtree(server.runtime_dir)
    wait_until(lambda: serves(server) and answers_operators(server), "both sockets")
    assert server.runtime_dir.stat().st_mode & 0o777 == 0o700


def test_socket_of_another_program_in_its_place_is_told_and_left(server: RunningServer) -> None:
    server.nbd_socket.unlink()
    with unix_socket(server.nbd_socket):
        server.wait_for_line(f"{server.nbd_socket} is another program's socket now")
        inode = server.nbd_socket.stat().st_ino
        doctor = server.ctl("doctor", check=False)
        assert (
            doctor.returncode,
            f"nobody can connect to {server.nbd_socket}" in doctor.stdout,
        ) == (
            1,
            True,
        )
        assert server.nbd_socket.stat().st_ino == inode
    wait_until(lambda: serves(server), "the socket to be made again")
    server.nbd_socket.unlink()
    with unix_socket(server.nbd_socket):
        assert server.stop() == 0
        assert server.nbd_socket.exists()


def test_socket_of_systemd_that_was_removed(idle: RunningServer) -> None:
    """A restart under the socket unit: what systemd passes has no name any more."""
    with unix_socket(idle.nbd_socket) as passed:
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(idle.nbd_socket))
        idle.nbd_socket.unlink()
        launched_with(idle, passed)
        idle.wait_for_line(f"{idle.nbd_socket}, which systemd has passed, was removed")
        connected(idle).pwrite(DATA, PAGE)
        # Who was in its queue is served too.
        waiting.settimeout(30)
        assert waiting.recv(8) == b"NBDMAGIC"
        waiting.close()
        # And so once more, as after a kill, when the name leads to a socket of nobody.
        idle.kill()
        assert idle.nbd_socket.exists()
        launched_with(idle, passed)
        assert bytes(connected(idle).pread(PAGE, PAGE)) == DATA


def test_socket_of_systemd_that_is_removed_later(idle: RunningServer) -> None:
    with unix_socket(idle.nbd_socket) as passed:
        launched_with(idle, passed)
        idle.nbd_socket.unlink()
        wait_until(lambda: serves(idle), "the socket to be made again")


def test_what_is_in_the_way_of_the_control_socket_does_not_keep_guests_waiting(
    idle: RunningServer,
) -> None:
    idle.control_socket.write_text("precious")
    idle.start()
    connected(idle).pwrite(DATA, PAGE)
    idle.wait_for_line(f"{idle.control_socket} is no socket and in the way: remove or rename it")
    assert idle.control_socket.read_text() == "precious"
    idle.control_socket.unlink()
    wait_until(lambda: answers_operators(idle), "the control socket to be made")
