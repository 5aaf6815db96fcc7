# SPDX-License-Identifier: BSD-3-Clause
"""Stores and couriers that are ended after each test."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.remote.courier.carried import RunningCourier
from tests.remote.stores import Cluster, StoreServer


class StartCourier(Protocol):
    def __call__(self, url: str, **settings: Any) -> RunningCourier: ...


@pytest.fixture
def start_courier() -> Iterator[StartCourier]:
    """Starts couriers; all are ended after the test."""
    with ExitStack() as stack:

        def start(url: str, **settings: Any) -> RunningCourier:
            return stack.enter_context(RunningCourier(url, **settings))

        yield start


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    """One server without anything."""
    with StoreServer(tmp_path / "store") as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three masters with a replica each."""
    with Cluster(tmp_path / "cluster") as running:
        yield running


@pytest.fixture
def courier(store: StoreServer, start_courier: StartCourier) -> RunningCourier:
    """One that has found the store."""
    return start_courier(store.url).ready()
