# SPDX-License-Identifier: BSD-3-Clause
"""What the section reckons from what it sees, and the program that takes memory."""

import sys
import time
from contextlib import suppress
from typing import Any

import pytest

from benchmarks import governor, targets
from benchmarks.governor import FLOOR, MIB, Look
from benchmarks.host_usage import private_bytes
from preswapd.host.children import Child

SHARES = [
    {"weight": 100, "limit": 40 * MIB, "used": 39 * MIB, "fair": 40.0 * MIB},
    {"weight": 200, "limit": 66 * MIB, "used": 66 * MIB, "fair": 72.0 * MIB},
]
FIGURES: dict[str, Any] = {
    "reserve": 500 * MIB,
    "taken": 640 * MIB,
    "beyond": 140 * MIB,
    "first_page": -0.2,
    "short": 3.0,
    "moved": 700 * MIB,
    "dd": 2.0,
    "shares": SHARES,
    "looks": [],
    "steady": {"seconds": 600.0, "reversals": [1, 3], "limits": []},
    "cpu": {"far": 0.001, "near": 0.006},
    "idle": 32,
}
LOOKS = [
    Look(10.0, 600, 50, 7),
    Look(11.0, 499, 50, 7),
    Look(11.5, 400, 40, 9),
    Look(13.0, 520, 30, 20),
    Look(14.0, 499, 30, 20),
    Look(14.2, 501, 30, 20),
]


def test_time_below_the_reserve_is_added_up() -> None:
    assert governor.crossing(LOOKS, 500) == 11.0
    assert governor.seconds_below(LOOKS, 500) == pytest.approx(2.2)
    assert governor.first_page(LOOKS, LOOKS[0], 11.0) == 0.5
    with pytest.raises(RuntimeError, match="not crossed"):
        governor.crossing(LOOKS, 399)


def test_rest_beyond_the_floors_goes_by_weight() -> None:
    assert governor.fair_shares([2 * FLOOR, FLOOR]) == [FLOOR + FLOOR / 3, FLOOR + 2 * FLOOR / 3]


@pytest.mark.parametrize(
    ("limits", "turns"),
    [([5, 5, 4, 4, 3], 0), ([5, 4, 4, 5], 1), ([5, 6, 5, 5, 6], 2), ([5], 0)],
)
def test_a_limit_turns_when_it_goes_back(limits: list[int], turns: int) -> None:
    assert governor.reversals(limits) == turns


def test_no_disk_is_asked_for_more_than_the_program_takes() -> None:
    """Two seconds for 500 MiB, and no disk has them back before that."""
    find = next(one for one in targets.TARGETS if "where that takes longer" in one.name).find
    assert governor.taking(FIGURES) == 2.0
    assert find({"governor": {**FIGURES, "dd": 0.1}}) == 1.5
    assert find({"governor": {**FIGURES, "dd": 6.0}}) == 0.5


def test_memory_is_taken_at_that_rate_and_kept() -> None:
    begun = time.monotonic()
    taking = Child([sys.executable, "-m", "benchmarks.taker", str(32 * MIB), str(64 * MIB)])

    def has_taken() -> bool | None:
        # Between open and read setpriv may have become Python: nobody's memory.
        with suppress(ProcessLookupError):
            return private_bytes(taking.pid) > 32 * MIB or None
        return None

    try:
        taking.watch(has_taken, 30)
        # No sooner, however fast the machine is; the interpreter has 8 MiB of its own.
        assert time.monotonic() - begun >= 0.3
        assert taking.status is None
    finally:
        taking.kill()


def test_tables_say_who_has_what() -> None:
    shown = governor.table(FIGURES)
    assert "vm2     200   72.0   66.0   66.0      3" in shown
    assert "640.0 MiB" in shown


@pytest.mark.parametrize(
    ("name", "measured", "met"),
    [
        ("a page leaves, once the host has less than its reserve", "-0.20 s", True),
        ("  time below the reserve, to dd of what had to move", "1.50", False),
        ("  the same, to the program where that takes longer", "1.50", None),
        ("  instances' limits 30 s later, off their shares", "8.3 %", False),
        ("a limit's turns under a constant load", "3", False),
        ("a governor far from its reserve, of one processor", "0.10 %", True),
        ("a governor near its reserve, of one processor", "0.60 %", False),
    ],
)
def test_targets_of_the_governor(name: str, measured: str, met: bool | None) -> None:
    (row,) = (row for row in targets.rows({"governor": FIGURES}) if row.name == name)
    assert (row.measured, row.met) == (measured, met)
