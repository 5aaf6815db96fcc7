# SPDX-License-Identifier: BSD-3-Clause
"""What is read of idle servers, and what the section says of it."""

import os
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any

import pytest

from benchmarks import many, targets
from benchmarks.groups import MEMORY, READ_16, WRITE_16
from benchmarks.host_usage import private_bytes, run_seconds, wakeups
from preswapd.host.children import Child

MIB = 1 << 20
ONE = {"private": 5.5 * MIB, "wakeups": 1.02, "cpu": 0.0002, "start_cpu": 0.25, "ready": 17.0}
LOADS = {READ_16.name: 90e3, WRITE_16.name: 60e3}
FIGURES: dict[str, Any] = {
    "idle": {"1": ONE, "100": ONE},
    "peer": {**ONE, "wakeups": 0.0},
    "loaded": {"10": LOADS, "100": LOADS},
    "beside": [
        {
            "number": 8,
            "load": READ_16.name,
            "servers": {
                MEMORY[0]: [{"iops": 80e3}],
                MEMORY[1]: [{"iops": 100e3}],
                many.OURS.name: [{"iops": 90e3}],
            },
        }
    ],
}


def test_each_that_sleeps_and_wakes_is_counted() -> None:
    ticking = Child(["sh", "-c", "while :; do sleep 0.01; done"])
    waiting = Child(["sleep", "60"])
    try:
        ticking.watch(lambda: wakeups(ticking.pid) > 5 or None, 30)
        before = wakeups(waiting.pid)
        ticking.watch(lambda: wakeups(ticking.pid) > 50 or None, 30)
        assert wakeups(waiting.pid) - before <= 2
    finally:
        ticking.kill()
        waiting.kill()


def test_processor_time_is_that_of_all_threads() -> None:
    spinning = Child(["sh", "-c", "while :; do :; done"])
    try:
        spinning.watch(lambda: run_seconds(spinning.pid) > 0.05 or None, 30)
    finally:
        spinning.kill()


def test_private_memory_is_what_a_process_has_for_itself() -> None:
    before = private_bytes(os.getpid())
    # Not of the heap, which may have as much at hand.
    with mmap(-1, 16 * MIB, flags=MAP_PRIVATE | MAP_ANONYMOUS) as kept:
        kept.write(b"x" * len(kept))
        assert private_bytes(os.getpid()) >= before + len(kept) // 2


def test_tables_say_what_each_costs() -> None:
    shown = many.table(FIGURES)
    assert "100                    5.5        1.02      0.20" in shown
    assert "0.90" in shown


@pytest.mark.parametrize(
    ("name", "measured", "met"),
    [
        ("an idle instance of a hundred, private memory", "5.5 MiB", True),
        ("  wake-ups a second", "1.02", False),
        ("  processor a second", "0.20 ms", True),
        ("  all hundred ready, started at once", "17.00 s", True),
    ],
)
def test_targets_of_a_hundred(name: str, measured: str, met: bool) -> None:
    (row,) = (row for row in targets.rows({"many": FIGURES}) if row.name == name)
    assert (row.measured, row.met) == (measured, met)
