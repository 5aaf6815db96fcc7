# SPDX-License-Identifier: BSD-3-Clause
"""What tests with a real guest share: its kernel, fetched once into the cache of the user."""

from pathlib import Path

import pytest

from preswapd.guest.kernel import Kernel, default_cache, find_kernel


@pytest.fixture(scope="session")
def guest_cache() -> Path:
    return default_cache()


@pytest.fixture(scope="session")
def kernel(guest_cache: Path) -> Kernel:
    return find_kernel(guest_cache)
