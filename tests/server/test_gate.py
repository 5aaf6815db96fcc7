# SPDX-License-Identifier: BSD-3-Clause
"""Strangers come in as fast as guests need, and wait outside where more come."""

import os
import select
import socket
from collections.abc import Iterator

import pytest

from preswapd.server.gate import A_SECOND, AT_ONCE, Gate
from preswapd.server.reopening import be_woken
from preswapd.server.sockets import is_silent


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def woken() -> None:
    """As this thread is nbdkit's first one here."""
    be_woken()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def unix() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0preswapd-test-{os.getpid()}")
        sock.listen()
        yield sock


@pytest.fixture
def gate(clock: Clock, listening: socket.socket, unix: socket.socket) -> Iterator[Gate]:
    found = Gate([unix.fileno(), listening.fileno()], clock)
    yield found
    for _, sock in found.aside:
        sock.close()


def crowd(gate: Gate, number: int) -> None:
    for _ in range(number):
        gate.note()


def test_some_wait_for_a_moment(gate: Gate, listening: socket.socket, unix: socket.socket) -> None:
    address = listening.getsockname()
    gate.note()
    assert gate.is_shut
    assert is_silent(listening.fileno())
    # Guests of the Unix socket do not.
    assert not is_silent(unix.fileno())
    with socket.create_connection(address):
        assert select.select([listening.fileno()], [], [], 0)[0] == []
        gate.look()
        assert not gate.is_shut
        accepted, _ = listening.accept()
        accepted.close()
    assert gate.times_full == 0


def test_as_many_as_guests_need_come_in_at_once(gate: Gate) -> None:
    for _ in range(3):
        crowd(gate, AT_ONCE // 4)
        gate.look()
        assert not gate.is_shut


def test_more_wait_for_longer(gate: Gate, clock: Clock) -> None:
    """Those that nbdkit had accepted before it was noticed are reckoned up."""
    crowd(gate, AT_ONCE + 100)
    for _ in range(2):
        gate.look()
        assert gate.is_shut
        assert gate.times_full == 1
        clock.now += 50 / A_SECOND
    clock.now += 2 / A_SECOND
    gate.look()
    assert not gate.is_shut
    crowd(gate, 2)
    gate.look()
    assert gate.times_full == 2


def test_it_is_as_wide_as_before_after_a_while(gate: Gate, clock: Clock) -> None:
    crowd(gate, AT_ONCE)
    clock.now += 1000
    gate.look()
    crowd(gate, AT_ONCE - 1)
    gate.look()
    assert not gate.is_shut
    crowd(gate, 1)
    gate.look()
    assert gate.is_shut


def test_nothing_to_shut(clock: Clock, unix: socket.socket) -> None:
    """A port that is taken has no socket yet."""
    gate = Gate([unix.fileno()], clock)
    crowd(gate, AT_ONCE + 1)
    gate.look()
    assert not is_silent(unix.fileno())
