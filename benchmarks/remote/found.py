# SPDX-License-Identifier: BSD-3-Clause
"""What the targets ask of the figures of the section `remote`."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Sections = Mapping[str, Any]
Find = Callable[[Sections], float | None]
DISK, STORE = "disk", "store"
ONE_KILLED, DOWN, CUT, FULL = "one node killed", "cluster down", "network cut", "store full"
FAULTS = (ONE_KILLED, DOWN, CUT, FULL)
# The disk alone instead, once more.
NONE = "no store, no fault"
# Who reads when something befalls the store.
CLIENT, GUEST = "client", "guest"
# A client that knows a cluster, and one that speaks to a single node.
CLUSTER_GET, GET = "GET by RedisCluster", "GET by Redis, of its node"


def median_of(runs: Sequence[Mapping[str, Any]], what: str) -> float:
    return float(statistics.median(run[what] for run in runs))


def faster(figures: Mapping[str, Any], depth: int) -> float:
    """Reads with the store to those from the disk alone, each in the same round."""
    found = figures["reads"]["reads"][str(depth)]
    pairs = zip(found[STORE], found[DISK], strict=True)
    return float(statistics.median(ours["iops"] / disk["iops"] for ours, disk in pairs))


def slower(figures: Mapping[str, Any], client: str) -> float:
    """A read at depth 1 to a client's GET, medians of the same round."""
    found = figures["reads"]
    pairs = zip(found["reads"]["1"][STORE], found["gets"][client], strict=True)
    return float(statistics.median(read["median"] / get for read, get in pairs))


def felt(figures: Mapping[str, Any], who: str, fault: str) -> float:
    """Their p99 after a fault, to that of the disk alone."""
    found = figures["felt"][who][fault]
    pairs = zip(found[STORE], found[DISK], strict=True)
    return float(statistics.median(ours["p99"] / disk["p99"] for ours, disk in pairs))


def of_remote(figure: Callable[[Mapping[str, Any]], float]) -> Find:
    """None where the disk could not be limited: it is as fast as any store."""

    def find(sections: Sections) -> float | None:
        found = sections.get("remote")
        return None if found is None or not found["limited"] else figure(found)

    return find


def reads(depth: int) -> Find:
    return of_remote(lambda found: faster(found, depth))


def latency(client: str) -> Find:
    return of_remote(lambda found: slower(found, client))


def p99_after(who: str, fault: str) -> Find:
    return of_remote(lambda found: felt(found, who, fault))
