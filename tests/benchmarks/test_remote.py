# SPDX-License-Identifier: BSD-3-Clause
"""The section `remote`: its store, what is reckoned, and all of it at the smallest size."""

import copy
from pathlib import Path
from typing import Any

import pytest

from benchmarks import remote, targets
from benchmarks.remote import client, faults, guest, sets
from benchmarks.remote.cluster import NODES, store
from benchmarks.remote.found import CLIENT, CLUSTER_GET, FAULTS, GET, GUEST, NONE
from benchmarks.remote.swapped import REQUESTS
from tests.remote.stores import needs_store


def run(iops: float, median: float, store: float) -> dict[str, Any]:
    cpu = {"client": 10.0, "server": 30.0, "courier": 20 * store, "nodes": 14 * store}
    times = {"iops": iops, "median": median, "p99": 9000.0}
    return times | {"from_store": store, "late": 0.001, "cpu": cpu}


def felt(disk: list[float], store: list[float]) -> dict[str, Any]:
    return {
        way: [{"rate": 3000.0, "p50": 500.0, "p99": p99, "from_store": 0.25} for p99 in runs]
        for way, runs in (("disk", disk), ("store", store), ("before", [9e3, 10e3]))
    }


DISKS = [run(3000, 800, 0), run(2000, 800, 0), run(3000, 800, 0)]
STORES = [run(16500, 95, 1), run(11000, 90, 1), run(6000, 100, 1)]
FIGURES: dict[str, Any] = {
    "bytes": 64 << 20,
    "store": "7.0.15",
    "limited": True,
    "reads": {
        "stored": 0.998,
        "stored_at_once": 0.41,
        "value_bytes": 2101.0,
        "reads": {depth: {"disk": DISKS, "store": STORES} for depth in ("1", "16", "32")},
        "gets": {CLUSTER_GET: [50.0, 60.0, 100.0], GET: [38.0, 40.0, 50.0]},
    },
    "felt": {
        CLIENT: {fault: felt([80e3, 40e3], [72e3, 48e3]) for fault in (*FAULTS, NONE)},
        GUEST: {fault: felt([80e3, 40e3], [88e3, 48e3]) for fault in (*FAULTS, NONE)},
    },
    "guest": {"mib": 64, "memory": 97 << 20, "accelerator": "tcg"},
}


def shown(figures: dict[str, Any], name: str) -> targets.Row:
    [row] = [row for row in targets.rows({"remote": figures}) if row.name == name]
    return row


def test_rounds_are_compared_with_themselves() -> None:
    assert shown(FIGURES, "reads with a store, depth 16, to the disk's").measured == "5.50"
    assert shown(FIGURES, "  a read at depth 1, to the client's GET").measured == "1.50"
    assert shown(FIGURES, "  the same, to a GET of a client of one node").met is None
    assert shown(FIGURES, "  a client's p99 after network cut, to the disk's").measured == "1.05"
    assert shown(FIGURES, "  a guest's p99 after network cut, to the disk's").met is False


def test_a_disk_without_a_limit_is_no_target() -> None:
    figures = copy.deepcopy(FIGURES) | {"limited": False}
    for row in targets.rows({"remote": figures}):
        assert row.measured == "not measured", row
    assert "no limit" in remote.table(figures)


def test_tables_say_it_all() -> None:
    table = remote.table(FIGURES)
    assert f"{REQUESTS:,} reads a second" in table
    words = ("2101 bytes", "41 %", "network cut", CLUSTER_GET, "courier", "5.50", "97 MiB (tcg)")
    for each in words:
        assert each in table


def test_processor_time_of_sets_is_that_of_all_rounds() -> None:
    rates = {"pages/s": 60e3, "stored %": 75.0, "sets/s": 30e3}
    shrunk = rates | {"pages": 1000, "server": 0.006, "courier": 0.0, "nodes": 0.0}
    rounds = [shrunk | {"sets": 700, "courier": 0.01}, shrunk | {"sets": 800}]
    table = sets.table({"after": rounds, "after, no store": [shrunk | {"sets": 0}]})
    [stored, alone] = [line.split() for line in table.splitlines() if "after" in line]
    assert stored == ["after", "60000", "75", "30000", "6.0", "6.7", "0.0"]
    assert alone[-1] == "6.0"


def test_only_reads_that_began_later_count_after_a_fault() -> None:
    begun, took = client.parsed("1764415000500, 2000000, 0, 4096, 8388608, 0")
    assert begun == pytest.approx(1764415000.498)
    assert took == 2000
    # So that one that had waited before it is not taken for one that waits after it.
    seen = [faults.Seen(at / 1000, 500.0) for at in range(0, 1000, 100)]
    before, after = faults.around(seen, 0.45)
    assert [one.begun for one in before] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert [one.begun for one in after] == [0.6, 0.7, 0.8, 0.9]


def test_a_guests_page_ins_are_told_by_this_hosts_clock() -> None:
    begun, took = guest.parsed("1764415000500000000 2000000", ahead=0.25)
    assert begun == pytest.approx(1764415000.25)
    assert took == 2000


def test_tail_of_a_hundred() -> None:
    found = faults.summed_up([faults.Seen(took / 1e3, took) for took in range(1, 1001)])
    assert found["p50"] == pytest.approx(500.5)
    assert found["p99"] == pytest.approx(990.99)
    assert found["rate"] == pytest.approx(1000 / 0.999)
    assert faults.summed_up([])["p99"] == 0


@needs_store
def test_a_store_that_something_befell_is_whole_again(tmp_path: Path) -> None:
    with store() as cluster:
        first, *_, last = cluster.nodes
        last.kill()
        cluster.cut()
        cluster.mend()
        assert len(first("CLUSTER", "SLOTS")) == NODES
        assert last("PING")
        cluster.limit("1mb")
        cluster.mend()
        assert first("INFO", "memory")["maxmemory"] == 0


@pytest.mark.slow
@pytest.mark.guest
@pytest.mark.timeout(600)
@needs_store
def test_all_of_it_at_the_smallest_size() -> None:
    figures = remote.measure(lambda text: None, quick=True)
    assert figures["reads"]["stored"] > 0.5
    for depth, ways in figures["reads"]["reads"].items():
        assert all(run["iops"] > 0 for runs in ways.values() for run in runs), depth
        assert all(not run["from_store"] for run in ways["disk"]), depth
    for who, found in figures["felt"].items():
        for fault, runs in found.items():
            assert all(run["p99"] > 0 for run in runs["store"]), (who, fault)
        assert any(run["from_store"] for runs in found.values() for run in runs["store"]), who
        assert not any(run["from_store"] for run in found[NONE]["store"]), who
    assert "with the store" in remote.table(figures)
