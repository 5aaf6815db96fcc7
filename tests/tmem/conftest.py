# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the page store's tests."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from preswapd.tmem._tmem import Host
from tests.tmem.model import Model, Store

LIMIT = 64 << 20


@pytest.fixture
def shm() -> Iterator[Path]:
    """A directory in shared memory."""
    path = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def host(shm: Path) -> Iterator[Host]:
    opened = Host(shm / "arena", LIMIT, create=True)
    yield opened
    opened.close()


@pytest.fixture(params=["model", "native"])
def store(request: pytest.FixtureRequest) -> Store:
    """The reference and the real thing: what holds for one holds for the other."""
    if request.param == "model":
        return Model(LIMIT)
    native: Host = request.getfixturevalue("host")
    return native


@pytest.fixture
def pool(store: Store) -> int:
    return store.new_pool()
