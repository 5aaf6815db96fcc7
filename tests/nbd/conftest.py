# SPDX-License-Identifier: BSD-3-Clause
"""Servers with room in the pool and without, and real NBD clients of them."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect, clients, connected, discard
from tests.running import RunningServer

MIB = 1 << 20

# The device has 64M; the last part keeps a small pool full.
SIZE = 64 * MIB
FREE = 48 * MIB


@pytest.fixture(scope="module", params=["32M", "4M"], ids=["ample", "full"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """One device, g1 of SIZE; the pool has room, or is full of pages behind FREE."""
    with RunningServer(tmp_path_factory.mktemp("server"), pool_size=request.param) as server:
        filler = discard(connected(server))
        if request.param == "4M":
            filler.pwrite(random.Random(0).randbytes(8 * MIB), FREE)
        filler.shutdown()
        yield server


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients that libnbd does not keep from sending what is wrong."""
    with clients(strict=False) as make:
        yield make


@pytest.fixture
def client(served: RunningServer, connect: Connect) -> Iterator[Any]:
    """A client of `served`, which finds the device empty up to FREE."""
    client = connect(served)
    client.trim(FREE - PAGE, PAGE)
    yield client
    assert bytes(client.pread(10, PAGE - 10)) == b"SWAPSPACE2"
