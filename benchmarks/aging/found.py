# SPDX-License-Identifier: BSD-3-Clause
"""What a run of the section `aging` comes to, in single figures."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.aging.contenders import FIRST, OURS
from benchmarks.aging.felt import ratio
from benchmarks.aging.recordings import SIMULATED
from benchmarks.aging.shown import last_share

Sections = Mapping[str, Any]
Find = Callable[[Sections], float | None]


def beyond_simulation(figure: str) -> Find:
    """By how many points the mean of all recordings lies above the simulation's."""

    def find(sections: Sections) -> float | None:
        traces = sections.get("aging", {}).get("recordings", {}).get("traces", {})
        points = [
            trace["runs"][OURS][figure] - getattr(SIMULATED[name].touch, figure)
            for name, trace in traces.items()
            if OURS in trace["runs"]
        ]
        return statistics.mean(points) if points else None

    return find


def hot_share(sections: Sections) -> float | None:
    """Reads of the hot set that came from memory in the last quarter of its time, in per cent."""
    patterns = sections.get("aging", {}).get("patterns", {}).get("found", {})
    runs = patterns.get("hot set", {}).get("runs", {})
    return last_share(runs[OURS]["hot set"]["series"]) if OURS in runs else None


def felt(who: str) -> Find:
    def find(sections: Sections) -> float | None:
        found = sections.get("aging", {}).get("felt", {}).get(who, {})
        return ratio(found[OURS]["pairs"]) if OURS in found else None

    return find


def turns(sections: Sections) -> float | None:
    """The time of a turn, to the first version's."""
    found = sections.get("aging", {}).get("turns", {}).get("found", {})
    if OURS not in found or FIRST not in found:
        return None
    ours, first = (found[name]["seconds"] / len(found[name]["turns"]) for name in (OURS, FIRST))
    return float(ours / first)
