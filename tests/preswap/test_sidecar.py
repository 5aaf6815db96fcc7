# SPDX-License-Identifier: BSD-3-Clause
"""What a sidecar says of a device that moves, and who can read it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preswapd.api.kinds import LARGEST_DEVICE
from preswapd.errors import RefusedError
from preswapd.preswap.files.sidecar import LENGTH, MOVING, RESTORING, RESTORING_ZONE, Sidecar

# Of what a server draws.
MOST = 1 << 63
LONGEST = Sidecar(
    name="g" * 15,
    size=LARGEST_DEVICE,
    type=(1 << 32) - 1,
    compress="zstd",
    arena="f" * 32,
    boot_id="f" * 36,
    tmem_dirty=False,
    token=MOST,
    prev=MOST,
    inode=(1 << 64) - 1,
    clean=False,
    ctime=9 * 10**18,
    map="f" * 16,
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"life": MOST, "moved": MOST},
        {"life": MOST, "source": MOST, "arrival": MOST, "taken": True},
        {"source": MOST, "arrival": MOST, "renewing": True},
    ],
)
@pytest.mark.parametrize("restore", ["", RESTORING, RESTORING_ZONE])
def test_fits_into_a_sector(tmp_path: Path, changes: dict[str, Any], restore: str) -> None:
    """So that it can be written over on a full disk; more than can be in it at once."""
    sidecar = replace(LONGEST, **changes, restore=restore)
    path = tmp_path / f"{LONGEST.name}.json"
    assert len(sidecar.content()) == LENGTH
    sidecar.write(path)
    assert Sidecar.read(path) == sidecar


def test_earlier_release_can_read_it_unless_it_moves() -> None:
    """It knows format 1, ignores what it does not know, and would serve a guest its past."""
    for name in MOVING:
        change: dict[str, Any] = {name: True if name in ("taken", "renewing") else 5}
        moving = replace(LONGEST, **change)
        assert json.loads(moving.content())["format"] == 2
        assert moving.settled() == LONGEST
    restored = replace(LONGEST, restore=RESTORING)
    assert json.loads(restored.content())["format"] == 1
    assert restored.settled() == LONGEST
    body = json.loads(LONGEST.content())
    assert body["format"] == 1
    assert not {*MOVING, "restore"} & set(body)


@pytest.mark.parametrize("value", [-1, 1 << 64, True, "5"])
@pytest.mark.parametrize("name", ["life", "source", "arrival", "moved"])
def test_damaged(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / f"{LONGEST.name}.json"
    path.write_text(json.dumps({**json.loads(LONGEST.content()), name: value}))
    with pytest.raises(RefusedError, match="is damaged"):
        Sidecar.read(path)


@pytest.mark.parametrize(
    ("changes", "guest"),
    [
        ({}, "here"),
        ({"life": 5}, "here"),
        ({"life": 5, "moved": 6}, "gone"),
        ({"source": 5, "arrival": 6}, "coming"),
        ({"source": 5, "arrival": 6, "taken": True}, "here"),
    ],
)
def test_where_its_guest_is(changes: dict[str, Any], guest: str) -> None:
    assert replace(LONGEST, **changes).guest == guest
