"""Fixtures of the page store's tests, and how hard Hypothesis tries.

HYPOTHESIS_PROFILE=long lets the property tests run for minutes with new random examples (with
pytest's --timeout=0, as the limit for a test is two minutes); without it they take the same few
examples every time.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from preswapd.tmem._tmem import Host
from tests.tmem.model import Model, Store

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "short",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    stateful_step_count=40,
    suppress_health_check=SLOW_IS_FINE,
)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=1500,
    stateful_step_count=100,
    print_blob=True,
    suppress_health_check=SLOW_IS_FINE,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

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
