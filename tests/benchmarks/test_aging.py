# SPDX-License-Identifier: BSD-3-Clause
"""What is told of a run of the section `aging` is in its figures, and nothing else."""

from typing import Any

import pytest

from benchmarks import aging, targets
from benchmarks.aging import shown
from benchmarks.aging.contenders import FILE, FIRST, OURS


def window(memory: float | None, disk: float, series: list[Any] | None = None) -> dict[str, Any]:
    return {
        "memory": memory,
        "disk": disk,
        "late": 0.5,
        "read_us": [100.0, 200.0, 300.0],
        "bytes_written": 3 << 20,
        "cpu": 0.125,
        "upkeep": 0.03,
        "seconds": 4.0,
        "written": 1000,
        "disk_pages": 10 * disk,
        "series": series or [],
    }


def pair(idle: float, meanwhile: float) -> list[dict[str, Any]]:
    return [
        {"p99": p99, "cpu": share, "upkeep": share / 2, "written": written}
        for p99, share, written in ((idle, 0.1, 0), (meanwhile, 0.2, 2 << 20))
    ]


# Every second 100 pages are read: at first none from memory, then all but one in a hundred.
SERIES = [(1.0, 0, 100, 0), (2.0, 99, 101, 0), (3.0, 198, 102, 0), (4.0, 297, 103, 0)]
FIGURES: dict[str, Any] = {
    "recordings": {
        "speed": 8,
        "traces": {
            "sleeper": {"pool": 64 << 20, "runs": {OURS: window(84, 26), FIRST: window(16, 70)}},
            "jobs": {"pool": 32 << 20, "runs": {OURS: window(76, 39)}},
        },
        "missing": {FIRST: "it was tired"},
    },
    "patterns": {
        "pool": 64 << 20,
        "found": {
            "hot set": {
                "title": "A hot set",
                "shown": ["hot set"],
                "runs": {
                    OURS: {
                        "hot set, written": window(None, 60),
                        "hot set": window(74.2, 20, SERIES),
                    },
                    FILE: {
                        "hot set, written": window(None, 100),
                        "hot set": window(None, 100),
                    },
                },
            },
            "scan": {
                "title": "Scans",
                "shown": ["after scan 1", "after scan 2"],
                "runs": {
                    OURS: {
                        "scan 1": window(3, 0),
                        "after scan 1": window(97, 0),
                        "scan 2": window(3, 0),
                        "after scan 2": window(90, 0),
                    }
                },
            },
        },
    },
    "felt": {
        "client": {OURS: {"pairs": [pair(100, 110), pair(100, 140), pair(200, 220)]}},
        "guest": {OURS: {"pairs": [pair(100, 160), pair(100, 170), pair(100, 180)]}},
        "missing": {},
    },
    "turns": {
        "job_mib": 64,
        "accelerator": "tcg",
        "guest_memory": 128 << 20,
        "pool": 16 << 20,
        "found": {
            name: {
                "turns": [seconds] * 4,
                "seconds": 4 * seconds,
                "requests_per_second": 5000.0,
                "p99": 500.0,
                "memory": memory,
                "swapped_out": 1000,
                "swapped_in": 2000,
                "written": None,
                "server_cpu": 0.5,
            }
            for name, seconds, memory in ((OURS, 8.0, 81.0), (FIRST, 10.0, 40.0), (FILE, 9.0, None))
        },
    },
}


def cells(table: str, start: str) -> str:
    """What stands behind that in its row, with single blanks."""
    rows = (" ".join(line.split()) for line in table.splitlines())
    return next(row.removeprefix(f"{start} ") for row in rows if row.startswith(f"{start} "))


def test_recordings_stand_beside_the_simulation() -> None:
    table = shown.recorded(FIGURES["recordings"])
    assert cells(table, "sleeper") == "64.0 84.0 / 26 86.0 / 25 16.0 / 70 15.0 / 71"
    assert cells(table, "jobs") == "32.0 76.0 / 39 77.0 / 39 76.0 / 38"
    # Of the simulation's the means are of the same recordings.
    assert cells(table, "mean") == "80.0 / 32 81.5 / 32 16.0 / 70 15.0 / 71"


def test_pattern_says_when_its_pages_are_in_memory() -> None:
    table = shown.pattern_table(FIGURES["patterns"]["found"]["hot set"], 64 << 20)
    costs = "0.50 100 200 3.0 12.5 3.0"
    assert cells(table, f"hot set {OURS}") == f"74.2 99.0 1.0 20 {costs}"
    assert cells(table, f"hot set {FILE}") == f"0.0 0.0 never 100 {costs}"


@pytest.mark.parametrize(
    ("shares", "after"),
    [
        ([96, 97, 99], 0.0),
        ([10, 97, 99], 1.0),
        ([10, 97, 20, 99], 3.0),
        ([99, 98, 20], None),
        # One that is low for a moment, in twenty.
        ([*[99] * 30, 10, *[99] * 30], 0.0),
    ],
)
def test_time_until_pages_are_in_memory(shares: list[float], after: float | None) -> None:
    timed = [(float(at), share) for at, share in enumerate(shares, 1)]
    assert shown.seconds_until(timed, 95.0) == after


def test_part_that_was_not_measured_is_left_out() -> None:
    assert aging.table({"options": ""}) == ""
    assert "it was tired" in aging.table(FIGURES)
    assert "Two jobs of 64 MiB" in aging.table(FIGURES)
    only = {"options": "", "turns": FIGURES["turns"]}
    assert aging.table(only) == shown.turns_table(FIGURES["turns"])


def test_pairs_are_compared_within_each() -> None:
    table = shown.felt_table(FIGURES["felt"])
    assert cells(table, f"client {OURS}") == "100 140 1.10 10.0 20.0 10.0 2.0"


def test_targets_of_the_section() -> None:
    rows = {row.name.strip(): row for row in targets.rows({"aging": FIGURES})}
    verdicts = {
        "a hot set after cold pages, reads from memory": ("99.0 %", True),
        "seconds until 95 % are": ("1.0 s", True),
        "pages written to disk for each that had to go": ("0.80", True),
        "working set A, B, then A again, reads from memory": ("not measured", None),
        "a hot set after scans, reads from memory": ("90.0 %", None),
        "recorded traffic, reads from memory, to simulated": ("-1.5 points", True),
        "pages written to disk for 100, to simulated": ("0.5 points", True),
        "a guest's p99 while pages leave, to idle": ("1.70", False),
        "the server's processor time beyond idle": ("10.0 %", None),
        "of that, to write back": ("10.0 %", False),
        "two jobs in turn in a guest, time to the first version's": ("0.80", True),
    }
    assert {name: (rows[name].measured, rows[name].met) for name in verdicts} == verdicts
