# SPDX-License-Identifier: BSD-3-Clause
"""How fast memory comes back, and what guests feel meanwhile.

A pool with 256 MiB of pages is shrunk to nothing, beside dd of as many bytes to the same file
system in the same round.  A light load of 4 KiB requests over NBD is timed before, during and
after; so is one on a plain file while dd writes, for what the disk alone does to its readers.  In a
real guest the store (store.c), half of whose memory is swapped, is timed likewise.

    python -m benchmarks.giving_back [--quick]
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import shrinking
from benchmarks.guest_jobs import STORE, Material, Served, built_store
from benchmarks.guest_store import RunningStore
from benchmarks.guest_swaps import Budget, Place, Preswapd
from benchmarks.shrinking import LoadedServer, Seen, dd_rate, dd_source, seen_of_dd, seen_of_shrink
from preswapd.guest.kernel import default_cache, find_kernel

MIB = 1 << 20
ROUNDS = 5
QUICK_ROUNDS = 2
RATE_TARGET = 0.8  # of dd
LATENCY_TARGET = 5.0  # times idle, at the 99th percentile
PERCENTILES = (50.0, 99.0, 99.9)

GUEST_MEMORY = 128 * MIB
# Of 128 MiB a guest has 60 to spare.
GUEST_STORE_MIB = 120
# Reads alone would leave on disk what a shrink put there: half of the requests rewrite.
GUEST_WRITES = 50
GUEST_QUIET_SECONDS = 3.0


def measure(progress: Callable[[str], None], quick: bool) -> dict[str, Any]:
    begun = time.monotonic()
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with ExitStack() as stack:
        disk, memory = (
            Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="preswapd-bench-", dir=parent)
                )
            )
            for parent in ("/var/tmp", "/dev/shm")
        )
        figures = {
            "filled": shrinking.FILLED,
            **over_nbd(progress, rounds, disk, memory),
            "guest": in_a_guest(progress, rounds, memory),
        }
    return {**figures, "seconds": time.monotonic() - begun}


# --- over NBD ---


def over_nbd(
    progress: Callable[[str], None], rounds: int, disk: Path, memory: Path
) -> dict[str, Any]:
    """Rates of each round in MB/s; percentiles of the reads of all rounds, in microseconds."""
    source = dd_source(memory)
    rates = []
    shrinks, dds = [], []
    for number in range(rounds):
        which = f"giving back: round {number + 1} of {rounds}"
        with LoadedServer() as server:
            progress(f"{which}, shrink and dd")
            server.start()
            server.fill()
            rate, size = shrinking.shrink_rate(server)
            rates.append({"shrink": rate, "dd": dd_rate(source, disk, size)})
            progress(f"{which}, reads during a shrink")
            server.fill()
            shrinks.append(seen_of_shrink(server, memory))
        progress(f"{which}, reads during dd")
        dds.append(seen_of_dd(source, disk, memory))
    return {"rates": rates, "reads": percentiles_of(shrinks), "plain_file": percentiles_of(dds)}


def percentiles_of(rounds: Sequence[Seen]) -> dict[str, list[float]]:
    return {
        "before": percentiles([taken for one in rounds for taken in one.before]),
        "during": percentiles([taken for one in rounds for taken in one.during]),
        "after": percentiles([taken for one in rounds for taken in one.after]),
        "samples": [float(sum(len(one.during) for one in rounds))],
    }


def percentiles(times: list[float]) -> list[float]:
    if not times:
        raise RuntimeError("no request was timed")
    ordered = sorted(times)
    return [ordered[int(len(ordered) * wanted / 100)] for wanted in PERCENTILES]


# --- in a guest ---


def in_a_guest(progress: Callable[[str], None], rounds: int, folder: Path) -> dict[str, Any]:
    """Medians of the rounds' percentiles of a request of the store, in microseconds.

    A window ends when a signal has reached the store, some ten milliseconds after the shrink.
    """
    progress("giving back: a guest fills its memory and swap")
    cache = default_cache()
    disk = folder / "nothing"
    disk.write_bytes(bytes(MIB))
    material = Material([], [], {STORE: built_store()}, disk)
    place = Place(find_kernel(cache), cache, material, folder)
    windows: dict[str, list[Served]] = {"before": [], "during": [], "after": []}
    shrinks = []
    with Preswapd(place, GUEST_MEMORY, Budget()) as swapping:
        guest = swapping.guest
        store = RunningStore(guest, GUEST_STORE_MIB, GUEST_WRITES)
        for number in range(rounds):
            progress(f"giving back: round {number + 1} of {rounds}, in a guest")
            time.sleep(GUEST_QUIET_SECONDS)  # what it rewrites goes to memory again
            store.window_ends()
            time.sleep(GUEST_QUIET_SECONDS)
            windows["before"].append(store.window_ends())
            report, window = shrinking.shrink(swapping.server.client)
            windows["during"].append(store.window_ends())
            shrinks.append({"moved": report.moved, "seconds": window.seconds})
            time.sleep(GUEST_QUIET_SECONDS)
            windows["after"].append(store.window_ends())
    medians = {
        name: [
            statistics.median(one)
            for one in zip(*((w.p50, w.p99, w.p999) for w in found), strict=True)
        ]
        for name, found in windows.items()
    }
    return {
        **medians,
        "window_seconds": [window.seconds for window in windows["during"]],
        "shrinks": shrinks,
        "accelerator": guest.accelerator,
    }


# --- what is shown ---


def table(figures: dict[str, Any]) -> str:
    rates = figures["rates"]
    shrink, dd = (statistics.median(rate[key] for rate in rates) for key in ("shrink", "dd"))
    ratio = statistics.median(rate["shrink"] / rate["dd"] for rate in rates)
    heading = "  ".join(f"{'p' + format(one, 'g'):>9}" for one in PERCENTILES)
    lines = [
        f"Giving {figures['filled'] // MIB} MiB of pages back; medians of {len(rates)} rounds",
        f"  shrink 0                {shrink:9.0f} MB/s",
        f"  dd oflag=direct bs=1M   {dd:9.0f} MB/s",
        f"  ratio                   {ratio:9.2f}       target {RATE_TARGET} or more",
        "",
        f"Time of a request in microseconds {'':15}{heading}",
        *phases("NBD client, 4 KiB reads", figures["reads"], "shrink"),
        *phases("plain file past the page cache", figures["plain_file"], "dd"),
        *phases(
            f"store in a guest ({figures['guest']['accelerator']})", figures["guest"], "shrink"
        ),
    ]
    return "\n".join(lines)


def phases(who: str, figures: dict[str, Any], what: str) -> list[str]:
    names = {"before": "idle", "during": f"during the {what}", "after": "after it"}
    lines = [
        f"  {who if key == 'before' else '':31} {name:16}"
        + "  ".join(f"{value:9.1f}" for value in figures[key])
        for key, name in names.items()
    ]
    ratio = figures["during"][1] / figures["before"][1]
    target = f", target {LATENCY_TARGET:g} or less" if what == "shrink" else ""
    return [*lines, f"  {'':31} p99 during / idle: {ratio:.1f}{target}"]


def plot(figures: dict[str, Any], folder: Path) -> list[Path]:
    """The rates, and percentiles of a request's time before, during and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.5), dpi=110, layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 2, 2, 2))
    rates = figures["rates"]
    names = ("shrink", "dd")
    axes[0].bar(names, [statistics.median(rate[name] for rate in rates) for name in names])
    axes[0].set_ylabel("MB/s")
    axes[0].set_title("giving back")
    shown = (("NBD client", "reads"), ("plain file, dd", "plain_file"), ("guest", "guest"))
    for at, (title, key) in zip(axes[1:], shown, strict=True):
        for number, phase in enumerate(("before", "during", "after")):
            places = [place + number / 4 for place in range(len(PERCENTILES))]
            at.bar(places, figures[key][phase], width=1 / 4, align="edge", label=phase)
        at.set_xticks([place + 0.4 for place in range(len(PERCENTILES))])
        at.set_xticklabels([f"p{one:g}" for one in PERCENTILES])
        at.set_yscale("log")
        at.set_title(title)
    axes[1].set_ylabel("microseconds")
    axes[1].legend()
    path = folder / "giving-back.png"
    figure.savefig(path)
    return [path]


if __name__ == "__main__":
    measured = measure(lambda text: print(text, file=sys.stderr), "--quick" in sys.argv)
    print(table(measured))
    if "--json" in sys.argv:
        print(json.dumps(measured))
