# SPDX-License-Identifier: BSD-3-Clause
"""Medians over rounds, and ratios to the best of the peers in the same round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What one load measured: by server, one dictionary (load.Measured) for each round.
ByServer = Mapping[str, Sequence[Mapping[str, float]]]


def median(by_server: ByServer, server: str, figure: str) -> float:
    return statistics.median(one[figure] for one in by_server[server])


def ratio(
    by_server: ByServer,
    server: str,
    peers: Sequence[str],
    figure: str = "iops",
    best: Callable[[Sequence[float]], float] = max,
) -> float | None:
    """The median over rounds of a server's figure through the best peer's of that round.

    None where the server or all of the peers were not measured.
    """
    there = [peer for peer in peers if by_server.get(peer)]
    ours = by_server.get(server)
    if not there or not ours:
        return None
    return statistics.median(
        one[figure] / best([by_server[peer][round_number][figure] for peer in there])
        for round_number, one in enumerate(ours)
    )


def load_of(figures: Mapping[str, Any], group: str, load: str) -> ByServer:
    """What a load of the section `loads` measured; empty where it did not run."""
    by_load = figures.get("groups", {}).get(group, {}).get("loads", {})
    return dict(by_load.get(load, {}))
