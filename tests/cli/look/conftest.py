# SPDX-License-Identifier: BSD-3-Clause
"""A client of the server that is looked at."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients import connected
from tests.running import RunningServer


@pytest.fixture
def client(server: RunningServer) -> Iterator[Any]:
    """Of the server's device g1."""
    client = connected(server, "g1")
    yield client
    client.shutdown()
