# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the swap devices' tests."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.preswap.running import Running
from tests.stepping import Stepper


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Directories for an instance with one device, g1 of 1 MiB; nothing is opened yet."""
    with ExitStack() as stack:
        yield stack.enter_context(Running(tmp_path))


@pytest.fixture(scope="session")
def steppers(stepping_library: Path) -> Iterator[tuple[Stepper, Stepper]]:
    """One that does the operations, one that recovers."""
    module = "tests.preswap.stepped"
    with Stepper(stepping_library, module) as worker, Stepper(stepping_library, module) as other:
        yield worker, other


@pytest.fixture
def base() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)
