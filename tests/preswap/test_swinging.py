# SPDX-License-Identifier: BSD-3-Clause
"""Room, ages, limits, quotas, codecs and idle writeback swing, and no page is lost or stale."""

import os
from pathlib import Path

import pytest

from preswapd.preswap.writeback import room
from tests.preswap.swinging import Swings

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
OPERATIONS = 10**7 if IS_LONG else 20_000


def test_swings(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PAUSE_SECONDS", 0.0)
    swings = Swings(base, seed=7)
    with swings.running:
        swings.run(OPERATIONS)
    assert sum(swings.done.values()) == OPERATIONS
    assert swings.counted
    assert all(swings.counted.values()), "each of them has happened"
    assert {"restart", "sync", "shrink", "change_over"} <= set(swings.done)
