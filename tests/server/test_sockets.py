# SPDX-License-Identifier: BSD-3-Clause
"""The sockets that the server listens on."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from preswapd.errors import RefusedError, UsageError
from preswapd.paths import InstancePaths
from preswapd.server import sockets


@pytest.fixture
def paths() -> Iterator[InstancePaths]:
    with tempfile.TemporaryDirectory(prefix="preswapd-") as name:
        yield InstancePaths(Path(name), Path(name), Path(name))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def opened(stack: ExitStack, found: sockets.Listening) -> sockets.Listening:
    for sock in [*found.nbd, *([found.control] if found.control else [])]:
        stack.enter_context(sock)
    return found


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_both_are_made(paths: InstancePaths, stack: ExitStack) -> None:
    found = opened(stack, sockets.listen_all(paths, []))
    assert found.own == [paths.nbd_socket, paths.control_socket]
    assert (mode(paths.nbd_socket), mode(paths.control_socket)) == (0o660, 0o600)


def test_stale_socket_is_replaced(paths: InstancePaths, stack: ExitStack) -> None:
    sockets.bind_unix(paths.nbd_socket, 0o600).close()
    opened(stack, sockets.listen_all(paths, []))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(paths.nbd_socket))


def test_other_file_in_the_way_is_kept(paths: InstancePaths) -> None:
    paths.nbd_socket.write_text("precious")
    with pytest.raises(RefusedError, match="is no socket and in the way: remove or rename it"):
        sockets.listen_all(paths, [])
    assert paths.nbd_socket.read_text() == "precious"


def test_tcp_beside_the_unix_socket(paths: InstancePaths, stack: ExitStack) -> None:
    found = opened(stack, sockets.listen_all(paths, [], sockets.Tcp(("127.0.0.1", 0))))
    assert [sock.family for sock in found.nbd] == [socket.AF_UNIX, socket.AF_INET]


def test_port_in_use(stack: ExitStack) -> None:
    taken = stack.enter_context(sockets.bind_tcp("127.0.0.1", 0))
    with pytest.raises(RefusedError, match="in use"):
        sockets.bind_tcp(*taken.getsockname())


def test_passed_socket_is_not_bound_again(paths: InstancePaths, stack: ExitStack) -> None:
    passed = sockets.bind_unix(paths.nbd_socket, 0o600)
    found = opened(stack, sockets.listen_all(paths, [passed]))
    assert found.nbd == [passed]
    assert found.own == [paths.control_socket]


def test_passed_control_socket(paths: InstancePaths, stack: ExitStack) -> None:
    passed = sockets.bind_unix(paths.control_socket, 0o600)
    found = opened(stack, sockets.listen_all(paths, [passed]))
    assert found.control is passed


def test_passed_socket_off_loopback(paths: InstancePaths, stack: ExitStack) -> None:
    """Nobody is served there, and guests at the path need not wait for that to be mended."""
    passed = stack.enter_context(sockets.bind_tcp("0.0.0.0", 0))
    found = opened(stack, sockets.listen_all(paths, [passed]))
    assert [sock.getsockname() for sock in found.nbd] == [str(paths.nbd_socket)]
    assert passed.fileno() == -1
    assert "0.0.0.0, which other hosts can reach" in found.complaints[0]


def test_passed_socket_off_loopback_with_tls(paths: InstancePaths, stack: ExitStack) -> None:
    passed = sockets.bind_tcp("0.0.0.0", 0)
    found = opened(stack, sockets.listen_all(paths, [passed], sockets.Tcp(is_guarded=True)))
    assert found.nbd[1:] == [passed]
    assert found.complaints == []


def test_no_socket_off_the_path_where_tls_cannot_be_had(
    paths: InstancePaths, stack: ExitStack
) -> None:
    """Not on loopback either: guests that count on TLS must not be served without."""
    passed = stack.enter_context(sockets.bind_tcp("127.0.0.1", 0))
    tcp = sockets.Tcp(("127.0.0.1", 0), is_guarded=True, error="no key")
    found = opened(stack, sockets.listen_all(paths, [passed], tcp))
    assert found.nbd[0].getsockname() == str(paths.nbd_socket)
    assert [sockets.is_silent(sock.fileno()) for sock in found.nbd[1:]] == [True]
    assert passed.fileno() == -1
    assert found.listen_error == "no key"


def test_client_whose_host_has_died_does_not_stay(stack: ExitStack) -> None:
    """For as long as it is silent, and while an answer is on its way."""
    listening = stack.enter_context(sockets.bind_tcp("127.0.0.1", 0))
    stack.enter_context(socket.create_connection(listening.getsockname()))
    served = stack.enter_context(listening.accept()[0])
    assert served.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == sockets.SILENT_SECONDS
    assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 120_000


def test_sockets_meant_for_another_process() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "OTHER": "x"}
    assert sockets.passed_by_systemd(environment) == []
    assert environment == {"OTHER": "x"}


def test_descriptor_that_is_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as file:
        monkeypatch.setattr(sockets, "FIRST_PASSED", file.fileno())
        with pytest.raises(UsageError, match="is not a socket"):
            sockets.passed_by_systemd({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})


def test_path_too_long_for_a_socket() -> None:
    deep = Path("/", "x" * 120)
    with pytest.raises(UsageError, match="too long"):
        sockets.check_lengths(InstancePaths(deep, deep, deep))
