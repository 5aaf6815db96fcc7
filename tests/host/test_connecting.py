# SPDX-License-Identifier: BSD-3-Clause
"""A connection is there by a time, or is an error, whatever the lookup of a name does."""

import socket
import threading
from collections.abc import Iterator

import pytest

from preswapd.host import connecting
from preswapd.host.connecting import Found, connected
from tests.running import wait_until

SHORT = 0.05


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_address_needs_no_lookup(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "addresses_of", None)
    connected("127.0.0.1", port, 5).close()


def test_name(port: int) -> None:
    connected("localhost", port, 5).close()


def test_lookup_that_hangs_holds_up_nobody(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, begun = threading.Event(), []

    def hanging(host: str, port: int) -> Found:
        begun.append(host)
        goes_on.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(connecting, "addresses_of", hanging)
    try:
        for _ in range(3):
            with pytest.raises(socket.gaierror, match="takes too long"):
                connected("hosta", port, SHORT)
        # However many requests of a guest ask for it.
        assert begun == ["hosta"]
    finally:
        goes_on.set()
    wait_until(lambda: not connecting.under_way, "the lookup to end")
    connected("hosta", port, 5).close()
    assert begun == ["hosta"] * 2


@pytest.mark.parametrize("name", ["no-such-host.invalid", "a" * 64, "a..b"])
def test_name_of_nobody(name: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011
        connected(name, 10809, 30)
    assert not connecting.under_way


def test_address_that_does_not_answer_leaves_time_for_the_next(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        # Whoever comes when the queue is full gets no answer.
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(silent.getsockname())
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", address)
            for address in (silent.getsockname(), ("127.0.0.1", port))
        ]
        monkeypatch.setattr(connecting, "addresses_of", lambda host, port: found)
        made = connected("hosta", port, 1)
        assert made.getpeername()[1] == port
        made.close()
        monkeypatch.setattr(connecting, "addresses_of", lambda host, port: found[:1])
        with pytest.raises(TimeoutError):
            connected("hosta", port, SHORT)
        for each in waiting:
            each.close()


@pytest.mark.parametrize("where", ["thread", "lookup"])
def test_lookup_that_could_not_be_made_is_tried_again(
    port: int, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("no thread, or no memory")

    with monkeypatch.context() as patched:
        if where == "thread":
            patched.setattr(threading.Thread, "start", fail)
        else:
            patched.setattr(connecting, "addresses_of", fail)
        for _ in range(2):
            with pytest.raises(MemoryError):
                connected("localhost", port, 5)
    connected("localhost", port, 5).close()
