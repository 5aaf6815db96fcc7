# SPDX-License-Identifier: BSD-3-Clause
"""What reads feel when something befalls the store, beside the disk alone."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from benchmarks.remote.cluster import NO_ROOM
from benchmarks.remote.found import CUT, DISK, DOWN, FULL, NONE, ONE_KILLED, STORE, felt, median_of
from benchmarks.remote.swapped import MORE_PAGES, Swapped
from benchmarks.sections import Figures, Progress
from benchmarks.text import columns

# Of each run, before it happens.
BEFORE_SECONDS = 1.0
# By then all is as with the disk alone.
GRACE_SECONDS = 0.1


BEFORE = "before"


class Fault(NamedTuple):
    name: str
    strike: Callable[[Swapped], None]
    # Pages leave memory meanwhile.
    is_leaving: bool = False
    is_store_used: bool = True


def nothing(_swapped: Swapped) -> None:
    """Where the store is not used."""


def kill_one(swapped: Swapped) -> None:
    swapped.cluster.nodes[-1].kill()


def kill_all(swapped: Swapped) -> None:
    for node in swapped.cluster.nodes:
        node.kill()


def cut(swapped: Swapped) -> None:
    swapped.cluster.cut()


def fill_up(swapped: Swapped) -> None:
    swapped.cluster.limit(NO_ROOM)


FAULTS = (
    # What two runs of the disk alone differ by.
    Fault(NONE, nothing, is_store_used=False),
    Fault(CUT, cut),
    Fault(FULL, fill_up, is_leaving=True),
    Fault(ONE_KILLED, kill_one),
    Fault(DOWN, kill_all),
)


class Seen(NamedTuple):
    """A read: when it began, in seconds since 1970, and how long it took, in microseconds."""

    begun: float
    took: float


class Reader(Protocol):
    """Reads pages of the slow disk, again and again."""

    def fill(self) -> None:
        """All that it reads is on disk, and in the store."""

    def begin(self) -> None:
        """It reads when this returns, for `whole()` at least."""

    def end(self) -> Sequence[Seen]:
        """What it read."""


def whole(seconds: float) -> float:
    """How long a reader reads, of which `seconds` count."""
    return BEFORE_SECONDS + GRACE_SECONDS + seconds


def measure(swapped: Swapped, who: str, reader: Reader, rounds: int, progress: Progress) -> Figures:
    found: Figures = {fault.name: {DISK: [], STORE: [], BEFORE: []} for fault in FAULTS}
    for number in range(rounds):
        for fault in FAULTS:
            progress(f"remote: a {who}, {fault.name}, round {number + 1} of {rounds}")
            of = found[fault.name]
            reader.fill()
            swapped.use_store(False)
            _, after = struck(swapped, reader, fault, nothing)
            of[DISK].append(summed_up(after))
            swapped.use_store(fault.is_store_used)
            reads, of_store = swapped.reads, swapped.reads_of_store
            before, after = struck(swapped, reader, fault, fault.strike)
            share = (swapped.reads_of_store - of_store) / max(swapped.reads - reads, 1)
            of[STORE].append(summed_up(after) | {"from_store": share})
            of[BEFORE].append(summed_up(before))
            swapped.cluster.mend()
            swapped.wait_for_store()
    return found


def struck(
    swapped: Swapped, reader: Reader, fault: Fault, strike: Callable[[Swapped], None]
) -> tuple[list[Seen], list[Seen]]:
    """Reads before the strike, and those that began GRACE_SECONDS after it."""
    if fault.is_leaving:
        swapped.take_in(MORE_PAGES)
    reader.begin()
    time.sleep(BEFORE_SECONDS)
    strike(swapped)
    at = time.time()
    if fault.is_leaving:
        swapped.shrink(0)
    return around(reader.end(), at)


def around(seen: Sequence[Seen], at: float) -> tuple[list[Seen], list[Seen]]:
    """What had ended by then, and what began when all should be as with the disk alone."""
    return (
        [one for one in seen if one.begun + one.took / 1e6 < at],
        [one for one in seen if one.begun > at + GRACE_SECONDS],
    )


def summed_up(seen: Sequence[Seen]) -> Figures:
    """Reads a second, and percentiles of a read's microseconds."""
    if len(seen) < 2:
        return {"rate": 0.0, "p50": 0.0, "p99": 0.0}
    cuts = statistics.quantiles([one.took for one in seen], n=100)
    begun = [one.begun for one in seen]
    return {"rate": len(seen) / (max(begun) - min(begun)), "p50": cuts[49], "p99": cuts[98]}


def table(figures: Figures, who: str, title: str) -> str:
    rows = []
    for name, found in figures["felt"][who].items():
        for what, when in WHEN.items():
            rate, p50, p99 = (median_of(found[what], key) for key in ("rate", "p50", "p99"))
            cells = (f"{rate:.0f}", f"{p50 / 1000:.1f}", f"{p99 / 1000:.1f}")
            more = ("", "")
            if what == STORE:
                share = 100 * median_of(found[what], "from_store")
                more = (f"{felt(figures, who, name):.2f}", f"{share:.0f}")
            rows.append((f"{name}: {when}", *cells, *more))
    heads = ("", "reads/s", "p50 ms", "p99 ms", "p99 to the disk's", "from store %, in all")
    return columns(f"{title} when something befalls the store", heads, rows)


WHEN = {
    BEFORE: "before it",
    STORE: f"{1000 * GRACE_SECONDS:.0f} ms after it",
    DISK: "the disk alone",
}
