# SPDX-License-Identifier: BSD-3-Clause
"""Clients over TCP that have not shown who they are get little time and room, and are counted."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from preswapd.errors import RefusedError
from preswapd.server import arrivals, connected
from preswapd.server.arrivals import (
    CROWDED,
    CROWDED_HOST,
    FAILED,
    MOST_BYTES,
    MOST_OF_A_HOST,
    PATIENCE_SECONDS,
    PLAIN,
    SLOW,
    TALKATIVE,
    Arrivals,
    network_of,
)
from tests.running import PATIENCE, wait_until

HERE = ("192.0.2.7", 4711)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(clock: Clock) -> Arrivals:
    return Arrivals(clock=clock)


def counts(door: Arrivals) -> dict[str, int]:
    return {found.reason: found.times for found in door.refusals()}


def wait_for_end(thread: threading.Thread) -> None:
    """Also in the kernel, which is a moment after Python's."""
    thread.join(PATIENCE)
    number = thread.native_id
    assert number is not None
    wait_until(lambda: not arrivals.is_alive(number), "the thread's end")


def as_client(*steps: Callable[[], object]) -> None:
    """In a thread of its own, as nbdkit has one for each connection, which ends afterwards."""

    def run() -> None:
        for step in steps:
            step()

    thread = threading.Thread(target=run)
    thread.start()
    wait_for_end(thread)


class Visit:
    """A client whose thread stays until it hangs up, and its connection."""

    def __init__(self, door: Arrivals) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.client = socket.create_connection(listening.getsockname())
            self.served, self.address = listening.accept()
        self.gone, come = threading.Event(), threading.Event()

        def run() -> None:
            door.arrive(self.address)
            come.set()
            self.gone.wait(PATIENCE)

        self.thread = threading.Thread(target=run)
        self.thread.start()
        come.wait(PATIENCE)

    def is_cut(self) -> bool:
        self.client.settimeout(0.01)
        try:
            return self.client.recv(1) == b""
        except TimeoutError:
            return False

    def end(self) -> None:
        self.gone.set()
        wait_for_end(self.thread)
        self.client.close()
        self.served.close()


@pytest.fixture
def visit(door: Arrivals) -> Iterator[Visit]:
    found = Visit(door)
    yield found
    found.end()


# --- who is counted ---


def test_client_that_is_let_in_is_not_counted(door: Arrivals) -> None:
    as_client(lambda: door.arrive(HERE), lambda: door.let_in(HERE, True))
    door.look()
    assert counts(door) == {}


def test_client_of_the_unix_socket_needs_nothing(door: Arrivals) -> None:
    as_client(
        lambda: door.arrive(None), lambda: door.check(None, False), lambda: door.let_in(None, False)
    )
    door.look()
    assert counts(door) == {}


def test_client_without_tls_is_refused_and_counted_once(door: Arrivals) -> None:
    def ask() -> None:
        with pytest.raises(RefusedError, match="does not use TLS"):
            door.check(HERE, False)
        with pytest.raises(RefusedError, match="does not use TLS"):
            door.let_in(HERE, False)

    as_client(lambda: door.arrive(HERE), ask)
    door.look()
    assert counts(door) == {PLAIN: 1}


def test_client_that_was_never_seen_is_refused_without_tls(door: Arrivals) -> None:
    with pytest.raises(RefusedError):
        door.let_in(HERE, False)
    assert counts(door) == {PLAIN: 1}


def test_client_that_goes_without_a_word_is_counted(door: Arrivals) -> None:
    as_client(lambda: door.arrive(HERE))
    door.look()
    assert counts(door) == {FAILED: 1}
    door.look()
    assert door.total == 1
    assert [found.host for found in door.refusals()] == ["192.0.2.7"]


def test_client_that_has_seen_the_list_over_tls_may_go(door: Arrivals) -> None:
    as_client(lambda: door.arrive(HERE), lambda: door.check(HERE, True))
    door.look()
    assert counts(door) == {}


def test_next_client_of_the_same_thread_ends_the_one_before(door: Arrivals) -> None:
    """The system gives the numbers of threads again."""
    as_client(lambda: door.arrive(HERE), lambda: door.arrive(HERE), lambda: door.let_in(HERE, True))
    door.look()
    assert counts(door) == {FAILED: 1}


def test_client_that_has_gone_before_it_was_asked_is_counted(door: Arrivals) -> None:
    door.miss()
    assert [(found.reason, found.host) for found in door.refusals()] == [
        (FAILED, "an unknown address")
    ]


# --- little time, little room ---


def test_stranger_that_dawdles_is_cut_off(door: Arrivals, clock: Clock, visit: Visit) -> None:
    clock.now = PATIENCE_SECONDS - 0.1
    door.look()
    assert not visit.is_cut()
    clock.now = PATIENCE_SECONDS
    door.look()
    assert visit.is_cut()
    door.look()
    visit.end()
    door.look()
    assert counts(door) == {SLOW: 1}


def test_stranger_that_says_too_much_is_cut_off(door: Arrivals, visit: Visit) -> None:
    visit.served.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sent = 0
    while sent <= MOST_BYTES:
        door.look()
        assert not visit.is_cut()
        visit.client.settimeout(PATIENCE)
        visit.client.sendall(bytes(1 << 16))
        left = 1 << 16
        while left:
            left -= len(visit.served.recv(left))
        sent += 1 << 16
    door.look()
    wait_until(visit.is_cut, "the stranger to be cut off")
    assert counts(door) == {TALKATIVE: 1}


def test_others_stay_connected(door: Arrivals, clock: Clock, visit: Visit) -> None:
    with ExitStack() as stack:
        other = Visit(door)
        stack.callback(other.end)
        with door.lock:
            del door.strangers[other.thread.native_id or 0]
        clock.now = 2 * PATIENCE_SECONDS
        door.look()
        assert visit.is_cut()
        assert not other.is_cut()


def test_crowd_is_kept_out(
    door: Arrivals, clock: Clock, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "MOST_STRANGERS", 1)

    def come() -> None:
        with pytest.raises(RefusedError, match="on their way in"):
            door.arrive(HERE)

    as_client(come)
    assert counts(door) == {CROWDED: 1}
    visit.end()
    # That it has gone is not looked for again at once.
    as_client(come)
    assert counts(door) == {CROWDED: 2}
    clock.now += 1
    as_client(lambda: door.arrive(HERE), lambda: door.let_in(HERE, True))
    assert counts(door) == {CROWDED: 2, FAILED: 1}


def test_one_host_keeps_no_other_out(door: Arrivals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with all addresses that IPv6 gives it."""
    monkeypatch.setattr(arrivals, "is_alive", lambda thread: True)
    # Each in a thread of its own number.
    numbers = iter(range(1, 1000))
    monkeypatch.setattr(threading, "get_native_id", lambda: next(numbers))
    for number in range(MOST_OF_A_HOST):
        door.arrive((f"2001:db8::{number:x}", 4711))
    with pytest.raises(RefusedError, match="others of its host"):
        door.arrive(("2001:db8::ffff", 4711))
    door.arrive(("2001:db8:0:1::1", 4711))
    door.arrive(HERE)
    assert counts(door) == {CROWDED_HOST: 1}


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("fe80::1", "fe80:0000:0000:0000"),
    ],
)
def test_what_one_host_may_have(host: str, network: str) -> None:
    assert network_of(host) == network


def test_nothing_is_looked_at_where_nobody_is(door: Arrivals, visit: Visit) -> None:
    """An idle server sleeps."""
    assert door.is_needed.is_set()
    door.look()
    assert door.is_needed.is_set()
    visit.end()
    door.look()
    door.look()
    assert not door.is_needed.is_set()


def test_descriptor_that_is_no_socket() -> None:
    with open("/dev/null") as file:
        assert connected.copy_of(file.fileno()) is None
    assert connected.copy_of(1 << 20) is None


def test_client_that_is_let_in_while_it_is_looked_at(
    door: Arrivals, clock: Clock, visit: Visit
) -> None:
    """What was seen a moment ago does not count any more."""
    (stranger,) = door.strangers.values()
    clock.now = PATIENCE_SECONDS
    door.strangers.clear()
    door.look_at(stranger, visit.served)
    assert not visit.is_cut()
    assert counts(door) == {}
