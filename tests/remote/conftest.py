# SPDX-License-Identifier: BSD-3-Clause
"""Fixtures of the remote tier's tests."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from preswapd.remote._remote import KEY_BYTES, Remote
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.running import Running
from tests.remote.played import Played
from tests.running import wait_for

PAGES = range(1, 100)


@pytest.fixture
def remote() -> Remote:
    """One whose store keeps whatever it is given, and may take a while to answer."""
    return Remote(bytes(KEY_BYTES), 10_000, 0, 3600)


@pytest.fixture
def courier(remote: Remote) -> Iterator[Played]:
    with Played(remote) as played:
        yield played


@pytest.fixture
def running(tmp_path: Path, remote: Remote) -> Iterator[Running]:
    """A device of 1 MiB that uses it, with PAGES in memory."""
    with ExitStack() as stack:
        opened = stack.enter_context(Running(tmp_path))
        opened.open()
        opened.device.use_remote(remote)
        connection = opened.connect()
        for page in PAGES:
            connection.pwrite(page_of(page), page * PAGE)
        yield opened


@pytest.fixture
def stored(running: Running, courier: Played) -> Running:
    """PAGES are on disk, and in the store."""
    running.instance.shrink(0)
    wait_for(lambda: courier.remote.figures()["remote_sets"], lambda sets: sets == len(PAGES))
    return running
