# SPDX-License-Identifier: BSD-3-Clause
"""The client against sockets where no proper server answers."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preswapd.api.client import Client
from preswapd.errors import PreswapError, UnreachableError


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="preswapd-") as name:
        yield Path(name, "control.sock")


@contextmanager
def answering(place: Path, answer: bytes) -> Iterator[Client]:
    """A server that says the same to everyone who asks."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place))
        listening.listen()

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                asked = peer.recv(65536)
                while asked.startswith((b"POST", b"PUT")) and not asked.endswith(b"}"):
                    asked += peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Client(place)
        thread.join()


def test_no_socket(place: Path) -> None:
    with pytest.raises(UnreachableError, match="no preswapd server answers"):
        Client(place).stats()


def test_nobody_listens(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(place))
    with pytest.raises(UnreachableError, match="no preswapd server answers"):
        Client(place).stats()


def test_path_too_long() -> None:
    with pytest.raises(UnreachableError, match="too long"):
        Client(Path("/", "x" * 200)).stats()


def test_server_ends_within_the_answer(place: Path) -> None:
    with (
        answering(place, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{") as client,
        pytest.raises(UnreachableError, match="went away"),
    ):
        client.stats()


def test_no_answer_at_all(place: Path) -> None:
    with answering(place, b"") as client, pytest.raises(UnreachableError, match="went away"):
        client.stats()


def test_not_json(place: Path) -> None:
    with (
        answering(place, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi") as client,
        pytest.raises(PreswapError, match="not JSON"),
    ):
        client.stats()


def test_shrink_without_a_result(place: Path) -> None:
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with (
        answering(place, text) as client,
        client.shrink(0) as running,
        pytest.raises(UnreachableError, match="before the shrink had ended"),
    ):
        running.wait(lambda step: None)


def test_setting_without_a_value(place: Path) -> None:
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with (
        answering(place, text) as client,
        pytest.raises(UnreachableError, match="before it said what was set"),
        client.set_and_follow("preswap.vm1.frozen", "1"),
    ):
        pass


def test_setting_whose_server_ends(place: Path) -> None:
    text = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"value": 1}'
    with answering(place, text) as client, client.set_and_follow("key", "1") as setting:
        assert setting.value == 1
        with pytest.raises(UnreachableError, match="before the shrink had ended"):
            setting.wait(lambda step: None)
