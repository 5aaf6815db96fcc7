# SPDX-License-Identifier: BSD-3-Clause
"""A node that is killed, hangs, or comes back."""

import time
from pathlib import Path

from tests.remote.courier.carried import AWAY, FOUND, MISS, STORED, RunningCourier, name_of
from tests.remote.courier.conftest import StartCourier
from tests.remote.stores import StoreServer, needs_store

pytestmark = needs_store


def test_a_killed_store_is_away_at_once_and_comes_back(
    store: StoreServer, courier: RunningCourier
) -> None:
    courier.set(name_of(1), b"x")
    store.kill()
    courier.wait_for_state("away")
    assert courier.status_of(name_of(1)) == AWAY
    assert courier.set(name_of(1), b"x") == AWAY
    with store:
        courier.ready()
        assert courier.status_of(name_of(1)) == MISS
        assert courier.set(name_of(1), b"x") == STORED


def test_what_was_asked_of_a_killed_store_is_answered(
    store: StoreServer, courier: RunningCourier
) -> None:
    store.pause()
    ids = [courier.new_id() for _ in range(50)]
    for id_ in ids:
        courier.send("g", id_, name_of(1) + name_of(2))
        courier.send("s", 1000 + id_, name_of(1) + b"x")
    store.kill()
    for id_ in ids:
        assert [answer.status for answer in courier.answers(id_, 2)] == [AWAY] * 2
        assert [answer.status for answer in courier.answers(1000 + id_, 1)] == [AWAY]


def test_a_store_that_hangs_is_away_and_comes_back(
    store: StoreServer, start_courier: StartCourier
) -> None:
    courier = start_courier(store.url, timeout_ms=100).ready()
    courier.set(name_of(1), b"x")
    store.pause()
    # Whenever a server would give up its read, it asks again.
    assert [courier.status_of(name_of(1)) for _ in range(2)] == [AWAY] * 2
    assert "does not answer within 100 ms" in courier.wait_for_state("away")["error"]
    begun = time.monotonic()
    assert [courier.status_of(name_of(1)) for _ in range(600)] == [AWAY] * 600
    # At once, and not after a timeout each: that would be a minute.
    assert time.monotonic() - begun < 30
    store.go_on()
    courier.ready()
    assert courier.value(name_of(1)) == b"x"


def test_a_store_that_hangs_while_nobody_asks(
    store: StoreServer, start_courier: StartCourier
) -> None:
    courier = start_courier(store.url, timeout_ms=100).ready()
    store.pause()
    courier.wait_for_state("away")
    store.go_on()
    courier.ready()


def test_a_store_that_hangs_takes_no_more_than_its_bound(
    store: StoreServer, start_courier: StartCourier
) -> None:
    """Sets are not waited for by anybody, and so are no reason to give a node up soon."""
    courier = start_courier(store.url).ready()
    store.pause()
    statuses: list[int] = []
    for number in range(6000):
        courier.send("s", number, name_of(number) + bytes(4096))
    while len(statuses) < 1000:
        statuses.append(courier.receive().status)
    assert statuses == [AWAY] * 1000
    store.go_on()


def test_a_hung_store_at_the_start(tmp_path: Path, start_courier: StartCourier) -> None:
    with StoreServer(tmp_path / "store") as store:
        store.pause()
        courier = start_courier(store.url)
        courier.wait_for_error("does not answer within 2 s")
        store.go_on()
        courier.ready()


def test_a_slow_store_is_no_store(store: StoreServer, start_courier: StartCourier) -> None:
    """It answers, but never in time."""
    courier = start_courier(store.url, timeout_ms=0.001)
    courier.wait_for_error("later than 0.001 ms")
    assert courier.status_of(name_of(1)) == AWAY


def test_a_store_that_is_loading(tmp_path: Path, start_courier: StartCourier) -> None:
    slowly = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"]
    with StoreServer(tmp_path / "store", *slowly) as store:
        courier = start_courier(store.url).ready()
        with store.client() as client:
            for number in range(300):
                client.set(b"preswapd:" + name_of(number), b"x")
        store("SAVE")
        store.kill()
        store.launch(with_file=True)
        courier.wait_for_error("LOADING")
        assert courier.status_of(name_of(1)) == AWAY
        store.kill()


def test_three_errors_in_a_row_close_it(store: StoreServer, courier: RunningCourier) -> None:
    courier.set(name_of(1), b"x")
    store("ACL", "SETUSER", "default", "-get")
    statuses = [courier.status_of(name_of(1)) for _ in range(5)]
    assert statuses[0] != FOUND
    assert statuses[3:] == [AWAY] * 2
    assert "NOPERM" in courier.wait_for_state("away")["error"]
    store("ACL", "SETUSER", "default", "+get")
    courier.ready()
    assert courier.value(name_of(1)) == b"x"
