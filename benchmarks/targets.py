# SPDX-License-Identifier: BSD-3-Clause
"""What the project set out to reach, and whether this run did."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import governor
from benchmarks.aging import found as aging
from benchmarks.groups import (
    LZ4,
    MEMORY,
    MEMORY_ZSTD,
    READ_1,
    READ_16,
    SWAP_OUT,
    TIGHT,
    WRITE_1,
    WRITE_16,
)
from benchmarks.images import found as images
from benchmarks.load import Load
from benchmarks.ratios import load_of, ratio
from benchmarks.remote import found as remote
from benchmarks.text import MIB, columns

# All figures of a run, by section.
Sections = Mapping[str, Any]
Find = Callable[[Sections], float | None]

MB = 1e6
NO_ROOM = " (no room to spare)"
NO_HALT = " (processors kept awake)"
ONE_THREAD = (MEMORY[1],)


@dataclass(frozen=True)
class Target:
    """A figure with a bound; one without is only shown."""

    name: str
    find: Find
    least: float | None = None
    most: float | None = None
    unit: str = ""
    digits: int = 2

    def met(self, value: float) -> bool | None:
        if self.least is None and self.most is None:
            return None
        return (self.least is None or value >= self.least) and (
            self.most is None or value <= self.most
        )

    @property
    def bound(self) -> str:
        if self.least is not None:
            return f">= {self.least:g} {self.unit}".rstrip()
        return "" if self.most is None else f"<= {self.most:g} {self.unit}".rstrip()

    def shown(self, value: float) -> str:
        return f"{value:.{self.digits}f} {self.unit}".rstrip()


@dataclass(frozen=True)
class Row:
    """A target in this run; `met` is None where nothing was measured or nothing promised."""

    name: str
    bound: str
    measured: str
    met: bool | None


def rate(load: Load, peers: Sequence[str], server: str = LZ4, group: str = "warm") -> Find:
    """Requests a second, to the best of the peers'."""
    return lambda sections: ratio(measured(sections, group, load), server, peers)


def latency(load: Load, peers: Sequence[str] = MEMORY, group: str = "warm") -> Find:
    """The median of a request, to the best peer's."""
    return lambda sections: ratio(measured(sections, group, load), LZ4, peers, "median", min)


def rejected(load: Load) -> Find:
    def find(sections: Sections) -> float | None:
        seen = measured(sections, "warm", load).get(LZ4 + TIGHT)
        return 100 * max(one["rejected"] for one in seen) if seen else None

    return find


def measured(
    sections: Sections, group: str, load: Load
) -> Mapping[str, Sequence[Mapping[str, float]]]:
    return load_of(sections.get("loads", {}), group, load.name)


def at(*path: str) -> Find:
    """A figure by its place; None where it is not there."""

    def find(sections: Sections) -> float | None:
        here: Any = sections
        for name in path:
            if not isinstance(here, Mapping) or name not in here:
                return None
            here = here[name]
        return float(here)

    return find


def worst(section: str, kinds: str, figure: Callable[[Mapping[str, Any]], float]) -> Find:
    """The largest figure over all kinds of pages of a section."""

    def find(sections: Sections) -> float | None:
        found = sections.get(section, {}).get(kinds, {})
        return max((figure(one) for one in found.values()), default=None)

    return find


def shrink_rate(sections: Sections) -> float | None:
    """To dd's, both in the same round; the median of the rounds."""
    rates = sections.get("giving_back", {}).get("rates", [])
    return statistics.median(one["shrink"] / one["dd"] for one in rates) if rates else None


def p99_during_shrink(kind: str) -> Find:
    """To the 99th percentile of the same requests before it; percentiles are 50, 99 and 99.9."""

    def find(sections: Sections) -> float | None:
        seen = sections.get("giving_back", {}).get(kind)
        return seen["during"][1] / seen["before"][1] if seen and seen["before"][1] else None

    return find


def in_mb(find: Find) -> Find:
    return times(1 / MB, find)


def times(factor: float, find: Find) -> Find:
    def scaled(sections: Sections) -> float | None:
        value = find(sections)
        return None if value is None else value * factor

    return scaled


def of_a_hundred(figure: str, factor: float = 1.0) -> Find:
    """Of each of a hundred idle instances."""
    return times(factor, at("many", "idle", "100", figure))


def of_governor(figure: Callable[[Mapping[str, Any]], float]) -> Find:
    def find(sections: Sections) -> float | None:
        found = sections.get("governor")
        return None if found is None else figure(found)

    return find


TARGETS = (
    Target("4 KiB random read, depth 16, to nbdkit memory", rate(READ_16, MEMORY), least=1.0),
    Target("  the same" + NO_HALT, rate(READ_16, MEMORY, group="awake")),
    Target("4 KiB random write, depth 16, to nbdkit memory", rate(WRITE_16, MEMORY), least=0.9),
    Target("  the same" + NO_HALT, rate(WRITE_16, MEMORY, group="awake")),
    Target("  the same" + NO_ROOM, rate(WRITE_16, MEMORY, LZ4 + TIGHT)),
    Target(
        "4 KiB random write, depth 16, to allocator=zstd", rate(WRITE_16, (MEMORY_ZSTD,)), least=10
    ),
    Target("latency of a read, depth 1, to nbdkit memory", latency(READ_1), most=1.1),
    Target("  to nbdkit memory with as many threads", latency(READ_1, ONE_THREAD)),
    Target("  to nbdkit memory" + NO_HALT, latency(READ_1, group="awake")),
    Target("latency of a write, depth 1, to nbdkit memory", latency(WRITE_1), most=1.1),
    Target("  to nbdkit memory with as many threads", latency(WRITE_1, ONE_THREAD)),
    Target("  to nbdkit memory" + NO_HALT, latency(WRITE_1, group="awake")),
    Target("128 KiB writes, depth 16, to allocator=zstd", rate(SWAP_OUT, (MEMORY_ZSTD,)), least=3),
    Target("  the same, to nbdkit memory", rate(SWAP_OUT, MEMORY)),
    Target("  the same" + NO_HALT, rate(SWAP_OUT, MEMORY, group="awake")),
    Target("  the same" + NO_ROOM, rate(SWAP_OUT, MEMORY, LZ4 + TIGHT)),
    Target("  rejected" + NO_ROOM, rejected(SWAP_OUT), unit="%"),
    *(
        Target(
            f"host bytes of real pages, {codec}, to zram",
            at("pages", "ratio_to_zram", codec),
            most=1.05,
            digits=3,
        )
        for codec in ("lz4", "zstd")
    ),
    Target(
        "metadata a page",
        worst("memory", "loaded", lambda one: float(one["metadata_per_page"])),
        most=64,
        unit="B",
        digits=1,
    ),
    Target(
        "resident size of an idle server",
        in_mb(at("memory", "idle", "resident", "all")),
        most=40,
        unit="MB",
        digits=1,
    ),
    Target(
        "pool to live payload, 10 s after a random half was freed",
        worst("memory", "loaded", lambda one: float(one["after_freeing"]["used_to_live"][-1][1])),
        most=1.25,
        digits=3,
    ),
    Target(
        "an idle instance of a hundred, private memory",
        of_a_hundred("private", 1 / MIB),
        most=6,
        unit="MiB",
        digits=1,
    ),
    Target("  wake-ups a second", of_a_hundred("wakeups"), most=1),
    Target("  processor a second", of_a_hundred("cpu", 1000), most=0.3, unit="ms"),
    Target("  processor to start", of_a_hundred("start_cpu"), most=0.3, unit="s"),
    Target("  all hundred ready, started at once", of_a_hundred("ready"), most=30, unit="s"),
    Target("shrink rate, to dd", shrink_rate, least=0.8),
    Target("a guest's p99 during a shrink, to idle", p99_during_shrink("guest"), most=5),
    Target("  the same over NBD, without a guest", p99_during_shrink("reads"), most=5),
    Target(
        "a start after a kill, for each GiB stored",
        at("recovery", "seconds_per_gib"),
        most=0.25,
        unit="s",
    ),
    Target(
        "a hot set after cold pages, reads from memory",
        aging.last_share_of("hot set", "hot set"),
        least=99,
        unit="%",
        digits=1,
    ),
    Target("  seconds until 95 % are", aging.hot_seconds, most=60, unit="s", digits=1),
    Target("  pages written to disk for each that had to go", aging.hot_writes, most=2),
    Target(
        "working set A, B, then A again, reads from memory",
        aging.last_share_of("phases", "A again"),
        unit="%",
        digits=1,
    ),
    Target("a hot set after scans, reads from memory", aging.after_scans, unit="%", digits=1),
    Target(
        "recorded traffic, reads from memory, to simulated",
        aging.beyond_simulation("memory"),
        least=-3,
        unit="points",
        digits=1,
    ),
    Target(
        "  pages written to disk for 100, to simulated",
        aging.beyond_simulation("disk"),
        most=3,
        unit="points",
        digits=1,
    ),
    Target("a guest's p99 while pages leave, to idle", aging.felt("guest"), most=1.5),
    Target("  the same over NBD, without a guest", aging.felt("client")),
    Target("  the server's processor time beyond idle", aging.busier("client"), unit="%", digits=1),
    Target("  of that, to write back", aging.upkeep("client"), most=5, unit="%", digits=1),
    Target("two jobs in turn in a guest, time to the first version's", aging.turns, most=1.0),
    Target(
        "a page leaves, once the host has less than its reserve",
        at("governor", "first_page"),
        most=0.5,
        unit="s",
    ),
    Target(
        "  time below the reserve, to dd of what had to move",
        of_governor(lambda found: found["short"] / found["dd"]),
        most=1.2,
    ),
    Target(
        "  the same, to the program where that takes longer",
        of_governor(lambda found: found["short"] / max(found["dd"], governor.taking(found))),
    ),
    Target(
        "  instances' limits 30 s later, off their shares",
        of_governor(lambda found: 100 * governor.shares_off(found)),
        most=5,
        unit="%",
        digits=1,
    ),
    Target(
        "a limit's turns under a constant load",
        of_governor(lambda found: max(found["steady"]["reversals"])),
        most=2,
        digits=0,
    ),
    *(
        Target(
            f"a governor {where} its reserve, of one processor",
            times(100, at("governor", "cpu", name)),
            most=0.5,
            unit="%",
        )
        for where, name in (("far from", "far"), ("near", "near"))
    ),
    Target("eight boots from one image, disk reads, to one boot's", images.disk_reads, most=1.1),
    Target("  host memory, to the page cache's", images.memory, most=0.6),
    Target("  the same, without the process", images.arena),
    Target("  time, to the file in the page cache", images.seconds("cold"), most=1.05),
    Target("  the same, once more", images.seconds("warm"), most=1.05),
    Target("  the same, a disk of 3,000 requests a second", images.limited, most=1.05),
    Target("  time, to nbdkit file", images.boots_of_nbdkit),
    Target("a miss, depth 1, time to nbdkit file", images.misses, most=1.1),
    Target("  a hit", images.hits),
    Target("pages rejected in a burst of swap", images.rejected, most=0, digits=0),
    *(
        Target(f"reads with a store, depth {depth}, to the disk's", remote.reads(depth), least=5)
        for depth in (16, 32)
    ),
    Target(
        "  a read at depth 1, to the client's GET", remote.latency(remote.CLUSTER_GET), most=1.5
    ),
    Target("  the same, to a GET of a client of one node", remote.latency(remote.GET)),
    *(
        Target(
            f"  a {who}'s p99 after {fault}, to the disk's", remote.p99_after(who, fault), most=1.1
        )
        for who in (remote.CLIENT, remote.GUEST)
        for fault in remote.FAULTS
    ),
    Target("  a guest's of two runs of the disk", remote.p99_after(remote.GUEST, remote.NONE)),
)


def rows(sections: Sections) -> list[Row]:
    found = []
    for target in TARGETS:
        value = target.find(sections)
        if value is None:
            found.append(Row(target.name, target.bound, "not measured", None))
        else:
            found.append(Row(target.name, target.bound, target.shown(value), target.met(value)))
    return found


def table(found: Sequence[Row]) -> str:
    met = {True: "yes", False: "NO", None: ""}
    return columns(
        "Targets",
        ("", "target", "measured", "met"),
        [[row.name, row.bound, row.measured, met[row.met]] for row in found],
    )
