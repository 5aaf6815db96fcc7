# SPDX-License-Identifier: BSD-3-Clause
"""Threads beside the peer's: what the tables say of what was measured."""

from benchmarks import threads


def measured(iops: float, cpu: float) -> dict[str, float]:
    return {"iops": iops, "cpu": cpu}


def test_ratios_are_to_as_many_threads_and_to_the_best_of_the_round() -> None:
    """In the second round the machine is slower, and another peer is the best."""
    by_server = {
        threads.ours(1).name: [measured(90e3, 5), measured(40e3, 5), measured(90e3, 6)],
        threads.peer(1).name: [measured(100e3, 3), measured(40e3, 3), measured(100e3, 4)],
        threads.ours(4).name: [measured(60e3, 8), measured(30e3, 8), measured(60e3, 8)],
        threads.peer(4).name: [measured(80e3, 6), measured(80e3, 6), measured(80e3, 6)],
    }
    one, four = threads.rows(by_server, (1, 4))
    assert one == ["1", "90.0", "100.0", "0.90", "0.90", "5.0", "3.0"]
    assert four == ["4", "60.0", "80.0", "0.75", "0.60", "8.0", "6.0"]


def test_each_server_is_told_its_threads() -> None:
    for count in (1, 16):
        for server in (threads.ours(count), threads.peer(count)):
            assert f"--threads={count}" in server.command
