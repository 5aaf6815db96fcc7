# SPDX-License-Identifier: BSD-3-Clause
"""What tests with a real guest share: its kernel, fetched once into the cache of the user; and how
guests start whose memory says what it must hold."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from preswapd.guest.kernel import Kernel, default_cache, find_kernel
from tests.guest.stamped import StampedGuest
from tests.running import RunningServer

Boot = Callable[..., StampedGuest]


@pytest.fixture(scope="session")
def guest_cache() -> Path:
    return default_cache()


@pytest.fixture(scope="session")
def kernel(guest_cache: Path) -> Kernel:
    return find_kernel(guest_cache)


@pytest.fixture
def boot(kernel: Kernel, guest_cache: Path, tmp_path: Path) -> Iterator[Boot]:
    """Starts a guest on a server; each is ended at the latest after the test."""
    with ExitStack() as stack:

        def start(server: RunningServer, **options: Any) -> StampedGuest:
            guest = StampedGuest(server, kernel, guest_cache, tmp_path, **options)
            return stack.enter_context(guest)

        yield start
