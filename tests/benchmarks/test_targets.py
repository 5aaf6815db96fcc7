# SPDX-License-Identifier: BSD-3-Clause
"""The verdict is computed from the figures of the run, and from nothing else."""

from collections.abc import Mapping
from typing import Any

from benchmarks import targets
from benchmarks.groups import LZ4, MEMORY, READ_1, READ_16
from benchmarks.targets import Row


def row(sections: Mapping[str, Any], name: str) -> Row:
    return next(row for row in targets.rows(sections) if row.name == name)


def warm(load: str, **by_server: list[float]) -> dict[str, Any]:
    """A run in which each server had these requests a second, and half as many microseconds."""
    servers = {"ours": LZ4, "memory": MEMORY[0], "memory_1": MEMORY[1]}
    measured = {
        servers[key]: [{"iops": value, "median": value / 2} for value in values]
        for key, values in by_server.items()
    }
    return {"loads": {"groups": {"warm": {"loads": {load: measured}}}}}


def test_nothing_measured_is_neither_met_nor_missed() -> None:
    assert {found.met for found in targets.rows({})} == {None}
    assert {found.measured for found in targets.rows({})} == {"not measured"}


def test_speed_is_compared_with_the_best_peer_of_each_round() -> None:
    run = warm(READ_16.name, ours=[90, 90, 90], memory=[100, 50, 40], memory_1=[80, 100, 45])
    assert row(run, "4 KiB random read, depth 16, to nbdkit memory") == Row(
        "4 KiB random read, depth 16, to nbdkit memory", ">= 1", "0.90", False
    )


def test_latency_is_compared_with_the_lowest() -> None:
    run = warm(READ_1.name, ours=[44], memory=[40], memory_1=[80])
    assert row(run, "latency of a read, depth 1, to nbdkit memory").measured == "1.10"


def test_missing_peers_leave_no_ratio() -> None:
    run = warm(READ_16.name, ours=[90])
    assert row(run, "4 KiB random read, depth 16, to nbdkit memory").met is None


def test_of_several_kinds_the_worst_counts() -> None:
    kinds = {
        name: {"metadata_per_page": size, "after_freeing": {"used_to_live": [[0, 2], [10, 1.1]]}}
        for name, size in {"real": 40, "synthetic": 70}.items()
    }
    assert row({"memory": {"loaded": kinds}}, "metadata a page").met is False


def test_a_bound_itself_is_met() -> None:
    found = row(
        {"recovery": {"seconds_per_gib": 0.25}}, "a start after a kill, for each GiB stored"
    )
    assert (found.bound, found.measured, found.met) == ("<= 0.25 s", "0.25 s", True)


def test_table_names_what_was_missed() -> None:
    shown = targets.table([Row("speed", ">= 1", "0.90", False), Row("size", "<= 2", "1", True)])
    assert [line.split() for line in shown.splitlines()[2:]] == [
        ["speed", ">=", "1", "0.90", "NO"],
        ["size", "<=", "2", "1", "yes"],
    ]
