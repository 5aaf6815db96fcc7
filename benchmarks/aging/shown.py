# SPDX-License-Identifier: BSD-3-Clause
"""The tables of the section `aging`."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.aging.contenders import FIRST, OURS
from benchmarks.aging.felt import ratio
from benchmarks.aging.recordings import SIMULATED, Kept
from benchmarks.sections import Figures
from benchmarks.text import columns, mib

HEADS = ("late s", "read p50 us", "p99 us", "written MiB", "CPU %", "to write back")


def table(figures: Figures) -> str:
    return "\n\n".join(parts(figures))


def parts(figures: Figures) -> Iterator[str]:
    if found := figures.get("recordings"):
        yield recorded(found)
        yield costs(found)
    if found := figures.get("patterns"):
        for pattern in found["found"].values():
            yield pattern_table(pattern, found["pool"])
    if found := figures.get("felt"):
        yield felt_table(found)
    if found := figures.get("turns"):
        yield turns_table(found)
    for part in figures.values():
        if isinstance(part, Mapping) and part.get("missing"):
            lines = [f"  {name}: {why}" for name, why in part["missing"].items()]
            yield "\n".join(["Not measured:", *lines])


# --- recordings ---


def recorded(figures: Figures) -> str:
    title = (
        "Recorded swap traffic and half of the pool that all known pages take: reads from memory,"
        f" per cent /\npages written to disk for 100 written. Replayed {figures['speed']:g} times"
        " as fast"
    )
    heads = ("", "pool MiB", OURS, "simulated", FIRST, "simulated")
    rows = []
    # By column; a mean is of the recordings that were measured.
    of_column: list[list[Kept]] = [[], [], [], []]
    for name, trace in figures["traces"].items():
        simulated = SIMULATED[name]
        cells: list[str] = []
        for number, (contender, wanted) in enumerate(
            ((OURS, simulated.touch), (FIRST, simulated.first))
        ):
            run = trace["runs"].get(contender)
            pair = [Kept(run["memory"], run["disk"]), wanted] if run else []
            for kept, column in zip(pair, of_column[2 * number :], strict=False):
                column.append(kept)
            cells += map(shown, pair) if pair else ("", shown(wanted))
        rows.append([name, mib(trace["pool"]), *cells])
    if len(rows) > 1:
        rows.append(["mean", "", *map(mean, of_column)])
    return columns(title, heads, rows)


def shown(kept: Kept) -> str:
    return f"{kept.memory:.1f} / {kept.disk:.0f}"


def mean(seen: Sequence[Kept]) -> str:
    if not seen:
        return ""
    return shown(
        Kept(statistics.mean(one.memory for one in seen), statistics.mean(one.disk for one in seen))
    )


def costs(figures: Figures) -> str:
    rows = [
        [name, contender, *cost(run)]
        for name, trace in figures["traces"].items()
        for contender, run in trace["runs"].items()
    ]
    title = (
        "The same: seconds that the disk held the client up, its reads, bytes sent to disk, the"
        " server's\nshare of one processor"
    )
    return columns(title, ("", "", *HEADS), rows)


def cost(run: Mapping[str, Any]) -> list[str]:
    return [
        f"{run['late']:.2f}",
        f"{run['read_us'][0]:.0f}",
        f"{run['read_us'][1]:.0f}",
        sent(run["bytes_written"]),
        f"{100 * run['cpu']:.1f}",
        f"{100 * run['upkeep']:.1f}",
    ]


def sent(size: float | None) -> str:
    return "-" if size is None else mib(size)


# --- patterns ---


def pattern_table(pattern: Mapping[str, Any], pool: int) -> str:
    title = (
        f"{pattern['title']}; a pool of {pool >> 20} MiB: reads from memory in all of"
        " the time, in its last\nquarter, and the seconds until 95 % are; pages written to disk"
        " for 100 written"
    )
    heads = ("", "", "memory %", "at last %", "95 % after s", "to disk", *HEADS)
    rows = [
        [name, contender, *kept(run[name]), *cost(run[name])]
        for name in pattern["shown"]
        for contender, run in pattern["runs"].items()
    ]
    return columns(title, heads, rows)


def kept(window: Mapping[str, Any]) -> list[str]:
    memory, disk = window["memory"], window["disk"]
    shares = shares_of(window["series"])
    return [
        "0.0" if memory is None else f"{memory:.1f}",
        f"{last_share(window['series']) or 0.0:.1f}",
        "never" if (after := seconds_until(shares, 95.0)) is None else f"{after:.1f}",
        "" if disk is None else f"{disk:.0f}",
    ]


def shares_of(series: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Of a window's series: when, and the share of reads from memory since the time before."""
    found = []
    before: Sequence[float] = (0.0, 0, 0, 0)
    for one in series:
        memory, disk = one[1] - before[1], one[2] - before[2]
        if memory + disk:
            found.append((one[0], 100 * memory / (memory + disk)))
        before = one
    return found


def last_share(series: Sequence[Sequence[float]]) -> float | None:
    """Per cent of the reads of the last quarter that came from memory."""
    if not series:
        return None
    end, begun = series[-1], next(one for one in series if one[0] >= 0.75 * series[-1][0])
    memory, disk = end[1] - begun[1], end[2] - begun[2]
    return 100 * memory / (memory + disk) if memory + disk else None


def seconds_until(shares: Sequence[tuple[float, float]], wanted: float) -> float | None:
    """From when on all shares but one in twenty are at least that; None if they never are."""
    below = [number for number, (_, share) in enumerate(shares) if share < wanted]
    after = 0
    for number in below:
        left = shares[number:]
        if sum(share < wanted for _, share in left) > len(left) / 20:
            after = number + 1
    if after >= len(shares):
        return None
    return shares[after - 1][0] if after else 0.0


# --- what others feel ---


def felt_table(figures: Figures) -> str:
    heads = (
        *("", "", "idle us", "meanwhile us", "ratio", "CPU %, idle", "meanwhile", "to write back"),
        "written MiB",
    )
    rows = [
        [
            *(who, name, *(f"{median(found, at, 'p99'):.0f}" for at in (0, 1))),
            f"{ratio(found['pairs']):.2f}",
            *(f"{100 * median(found, at, 'cpu'):.1f}" for at in (0, 1)),
            f"{100 * median(found, 1, 'upkeep'):.1f}",
            sent(median(found, 1, "written")),
        ]
        for who in ("client", "guest")
        for name, found in figures[who].items()
    ]
    title = (
        "99th percentile of a request while pages of another disk leave the full pool, the server's"
        f" share of one\nprocessor, and what it sent to disk meanwhile; medians of"
        f" {pairs_of(figures)} pairs"
    )
    return columns(title, heads, rows)


def median(found: Figures, at: int, figure: str) -> float:
    return statistics.median(pair[at][figure] or 0 for pair in found["pairs"])


def pairs_of(figures: Figures) -> int:
    return max(
        (len(found["pairs"]) for who in ("client", "guest") for found in figures[who].values()),
        default=0,
    )


# --- two jobs ---


def turns_table(figures: Figures) -> str:
    heads = (
        *("", "turns", "s a turn", "k requests/s", "p99 us", "from pool %", "k out", "k in"),
        *("written MiB", "server cpu s"),
    )
    rows = [
        [
            name,
            str(len(one["turns"])),
            f"{one['seconds'] / len(one['turns']):.2f}",
            f"{one['requests_per_second'] / 1000:.1f}",
            f"{one['p99']:.1f}",
            "" if one["memory"] is None else f"{one['memory']:.1f}",
            f"{one['swapped_out'] / 1000:.1f}",
            f"{one['swapped_in'] / 1000:.1f}",
            sent(one["written"]),
            f"{one['server_cpu']:.1f}",
        ]
        for name, one in figures["found"].items()
    ]
    title = (
        f"Two jobs of {figures['job_mib']} MiB in turn in a guest ({figures['accelerator']}) of"
        f" {figures['guest_memory'] >> 20} MiB, and half of the pool that both need:"
        f" {mib(figures['pool'])} MiB"
    )
    return columns(title, heads, rows)
