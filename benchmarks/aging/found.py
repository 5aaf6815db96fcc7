# SPDX-License-Identifier: BSD-3-Clause
"""What a run of the section `aging` comes to, in single figures."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.aging.contenders import FIRST, OURS
from benchmarks.aging.felt import ratio
from benchmarks.aging.recordings import SIMULATED
from benchmarks.aging.shown import last_share, seconds_until, shares_of

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


def last_share_of(pattern: str, window: str) -> Find:
    """Reads of the last quarter of its time that came from memory, in per cent."""

    def find(sections: Sections) -> float | None:
        windows = windows_of(sections, pattern)
        return last_share(windows[window]["series"]) if windows else None

    return find


def hot_seconds(sections: Sections) -> float | None:
    """Until 95 % of the reads of the hot set came from memory; all of its time if never."""
    windows = windows_of(sections, "hot set")
    if not windows:
        return None
    hot = windows["hot set"]
    after = seconds_until(shares_of(hot["series"]), 95.0)
    return float(hot["seconds"] if after is None else after)


def hot_writes(sections: Sections) -> float | None:
    """Pages written to disk since the hot set came, for each page of it.

    As many cold pages had to go as there are hot ones: their sizes are alike.
    """
    windows = windows_of(sections, "hot set")
    if not windows:
        return None
    filled, worked = windows["hot set, written"], windows["hot set"]
    return float((filled["disk_pages"] + worked["disk_pages"]) / filled["written"])


def after_scans(sections: Sections) -> float | None:
    """Reads of the hot set that came from memory after the worst of the scans, in per cent."""
    windows = windows_of(sections, "scan") or {}
    after = [window["memory"] for name, window in windows.items() if name.startswith("after")]
    return float(min(after)) if after else None


def windows_of(sections: Sections, pattern: str) -> Mapping[str, Any] | None:
    found = sections.get("aging", {}).get("patterns", {}).get("found", {})
    windows: Mapping[str, Any] | None = found.get(pattern, {}).get("runs", {}).get(OURS)
    return windows


def felt(who: str) -> Find:
    def find(sections: Sections) -> float | None:
        found = sections.get("aging", {}).get("felt", {}).get(who, {})
        return ratio(found[OURS]["pairs"]) if OURS in found else None

    return find


def busier(who: str) -> Find:
    """Of a processor, what the server takes more while pages leave, in per cent."""

    def find(sections: Sections) -> float | None:
        found = sections.get("aging", {}).get("felt", {}).get(who, {})
        if OURS not in found:
            return None
        pairs = found[OURS]["pairs"]
        more = [meanwhile["cpu"] - idle["cpu"] for idle, meanwhile in pairs]
        return 100 * float(statistics.median(more))

    return find


def upkeep(who: str) -> Find:
    """Of a processor, what the server takes to write back while pages leave, in per cent."""

    def find(sections: Sections) -> float | None:
        found = sections.get("aging", {}).get("felt", {}).get(who, {})
        if OURS not in found:
            return None
        return 100 * float(statistics.median(pair[1]["upkeep"] for pair in found[OURS]["pairs"]))

    return find


def turns(sections: Sections) -> float | None:
    """The time of a turn, to the first version's."""
    found = sections.get("aging", {}).get("turns", {}).get("found", {})
    if OURS not in found or FIRST not in found:
        return None
    ours, first = (found[name]["seconds"] / len(found[name]["turns"]) for name in (OURS, FIRST))
    return float(ours / first)
