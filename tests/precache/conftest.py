# SPDX-License-Identifier: BSD-3-Clause
"""An image of 3 MiB and a sector, cached in a pool with room."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.precache.running import MIB, Shown, content, shown

SIZE = 3 * MIB + 512


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "base.raw"
    made.write_bytes(content(SIZE))
    return made


@pytest.fixture
def image(path: Path) -> Iterator[Shown]:
    with shown(path) as made:
        yield made


@pytest.fixture
def shm() -> Iterator[Path]:
    """A directory in shared memory."""
    path = Path(tempfile.mkdtemp(prefix="preswapd-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)
