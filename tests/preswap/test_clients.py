# SPDX-License-Identifier: BSD-3-Clause
"""Whose client was connected when the server ended: the trace of it in shared memory."""

import os
from pathlib import Path

import pytest

from preswapd.paths import SharedMemoryPaths
from preswapd.preswap.clients import Clients, since_boot

DEVICES = ("g1", "g2")


@pytest.fixture
def paths(tmp_path: Path) -> SharedMemoryPaths:
    return SharedMemoryPaths(tmp_path)


def started(paths: SharedMemoryPaths, log: list[str] | None = None) -> Clients:
    """As a start after a kill finds it."""
    return Clients(paths, DEVICES, lambda priority, text: (log or []).append(text))


def awaited(clients: Clients) -> list[str]:
    return [device for device in DEVICES if device in clients.silent - clients.here]


def beaten(paths: SharedMemoryPaths, seconds: int) -> None:
    """The last sign of its server is so old; the host must have run for as long."""
    then = since_boot() - seconds * 10**9
    os.utime(paths.client("g1"), ns=(then, then))


def test_client_that_was_there_at_the_end_is_awaited(paths: SharedMemoryPaths) -> None:
    started(paths).note("g1", connected=True)
    for _ in range(2):
        assert awaited(started(paths)) == ["g1"]


def test_client_that_comes_back_is_not_awaited_any_more(paths: SharedMemoryPaths) -> None:
    started(paths).note("g1", connected=True)
    now = started(paths)
    now.note("g1", connected=True)
    assert awaited(now) == []
    assert awaited(started(paths)) == ["g1"]


def test_client_that_leaves_and_has_asked_for_nothing_was_another(paths: SharedMemoryPaths) -> None:
    """Also after one more kill."""
    started(paths).note("g1", connected=True)
    for _ in range(2):
        now = started(paths)
        now.note("g1", connected=True)
        now.note("g1", connected=False)
        assert awaited(now) == ["g1"]
    now.note("g1", connected=True)
    now.has_asked("g1")
    now.note("g1", connected=False)
    assert awaited(now) == awaited(started(paths)) == []


def test_client_that_left_before_the_end_is_not_awaited(paths: SharedMemoryPaths) -> None:
    before = started(paths)
    before.note("g1", connected=True)
    before.note("g1", connected=False)
    assert awaited(started(paths)) == []


def test_removed_device_leaves_no_trace(paths: SharedMemoryPaths) -> None:
    started(paths).note("g1", connected=True)
    now = started(paths)
    now.forget("g1")
    assert (awaited(now), now.away) == ([], {})
    assert awaited(started(paths)) == []


def test_away_counts_from_the_last_beat(paths: SharedMemoryPaths) -> None:
    before = started(paths)
    before.note("g1", connected=True)
    beaten(paths, 60)
    assert 60 <= started(paths).away["g1"] < 90
    before.beat()
    assert started(paths).away["g1"] < 30


def test_server_that_waits_for_a_client_is_there(paths: SharedMemoryPaths) -> None:
    started(paths).note("g1", connected=True)
    waiting = started(paths)
    beaten(paths, 60)
    waiting.beat()
    assert started(paths).away["g1"] < 30


def test_guest_that_may_be_paused_is_known_at_a_second_restart(paths: SharedMemoryPaths) -> None:
    """Its client may be back by then: it is the guest that asks for nothing."""
    started(paths).note("g1", connected=True)
    beaten(paths, 60)
    second = started(paths)
    second.beat()
    third = started(paths)
    third.note("g1", connected=True)
    third.beat()
    fourth = started(paths)
    assert 60 <= fourth.away["g1"] < 90
    fourth.note("g1", connected=True)
    fourth.has_asked("g1")
    fourth.goes_on("g1")
    fourth.beat()
    assert started(paths).away["g1"] < 30


def test_trace_that_cannot_be_made_is_told_and_harms_nobody(tmp_path: Path) -> None:
    log: list[str] = []
    clients = Clients(
        SharedMemoryPaths(tmp_path / "gone"), DEVICES, lambda priority, text: log.append(text)
    )
    clients.note("g1", connected=True)
    clients.beat()
    assert "No such file" in log[0]
