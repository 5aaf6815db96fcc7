# SPDX-License-Identifier: BSD-3-Clause
"""What a client's reads feel when something befalls the store, beside the disk alone."""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import load
from benchmarks.load import Load
from benchmarks.remote.cluster import NO_ROOM
from benchmarks.remote.found import CUT, DISK, DOWN, FULL, ONE_KILLED, STORE, felt
from benchmarks.remote.swapped import MORE_PAGES, Swapped
from benchmarks.sections import Figures, Progress
from benchmarks.text import columns

DEPTH = 16
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
    Fault(CUT, cut),
    Fault(FULL, fill_up, is_leaving=True),
    Fault(ONE_KILLED, kill_one),
    Fault(DOWN, kill_all),
)


class Seen(NamedTuple):
    """A read: when it began, in seconds since 1970, and how long it took, in microseconds."""

    begun: float
    took: float


def measure(swapped: Swapped, rounds: int, seconds: float, progress: Progress) -> Figures:
    found: Figures = {fault.name: {DISK: [], STORE: [], BEFORE: []} for fault in FAULTS}
    for number in range(rounds):
        for fault in FAULTS:
            progress(f"remote: {fault.name}, round {number + 1} of {rounds}")
            of = found[fault.name]
            swapped.fill()
            swapped.use_store(False)
            _, after = struck(swapped, fault, nothing, seconds)
            of[DISK].append(p99(after))
            swapped.use_store(True)
            before, after = struck(swapped, fault, fault.strike, seconds)
            of[STORE].append(p99(after))
            of[BEFORE].append(p99(before))
            swapped.cluster.mend()
            swapped.wait_for_store()
    return found


def nothing(_swapped: Swapped) -> None:
    """Where the store is not used."""


def struck(
    swapped: Swapped, fault: Fault, strike: Callable[[Swapped], None], seconds: float
) -> tuple[list[Seen], list[Seen]]:
    """Reads before the strike, and those that began GRACE_SECONDS after it."""
    job = Load(fault.name, "randread", "--bs=4k --norandommap", DEPTH)
    with tempfile.TemporaryDirectory(prefix="preswapd-bench-") as folder:
        log = Path(folder) / "reads"
        options = (f"--write_lat_log={log}", "--log_unix_epoch=1")
        disk = ["--ioengine=nbd", f"--uri={swapped.serving.uri}", *options]
        whole = BEFORE_SECONDS + GRACE_SECONDS + seconds
        reading = threading.Thread(
            target=load.fio_on, args=(disk, job, whole, str(swapped.size)), daemon=True
        )
        if fault.is_leaving:
            swapped.take_in(MORE_PAGES)
        reads = swapped.reads
        reading.start()
        while swapped.reads == reads:
            time.sleep(0.01)
        time.sleep(BEFORE_SECONDS)
        strike(swapped)
        at = time.time()
        if fault.is_leaving:
            swapped.shrink(0)
        reading.join()
        seen = list(map(parsed, (log.parent / "reads_lat.1.log").read_text().splitlines()))
    return around(seen, at)


def around(seen: Sequence[Seen], at: float) -> tuple[list[Seen], list[Seen]]:
    """What had ended by then, and what began when all should be as with the disk alone."""
    return (
        [one for one in seen if one.begun + one.took / 1e6 < at],
        [one for one in seen if one.begun > at + GRACE_SECONDS],
    )


def parsed(line: str) -> Seen:
    """A line of fio's log: when it ended, in ms, how long it took, in ns."""
    ended, took = line.split(",")[:2]
    return Seen(int(ended) / 1000 - int(took) / 1e9, int(took) / 1000)


def p99(seen: Sequence[Seen]) -> float:
    return statistics.quantiles([one.took for one in seen], n=100)[-1] if len(seen) > 1 else 0.0


def table(figures: Figures) -> str:
    rows = []
    for name, found in figures["faults"].items():
        medians = (statistics.median(found[what]) for what in (BEFORE, STORE, DISK))
        cells = (f"{one / 1000:.1f}" for one in medians)
        rows.append((name, *cells, f"{felt(figures, name):.2f}"))
    grace = f"{1000 * GRACE_SECONDS:.0f} ms"
    title = f"p99 of 4 KiB random reads, depth {DEPTH}, when something befalls the store, in ms"
    heads = ("", "before", f"{grace} after it", "the disk alone", "to it")
    return columns(title, heads, rows)
