# SPDX-License-Identifier: BSD-3-Clause
"""How many of the pages that leave memory at once reach the store, here and in another checkout.

    python -m benchmarks.remote.sets FOLDER [--rounds N] [--mib N] [--disk N]

FOLDER is a checkout in which `make build` was run.  The servers of both use one store and take
turns, in a new order in each round; of each the same pages leave without a store as well.  A disk
takes so many MiB a second, as a network volume does: a faster one leaves store and courier, which
are on this host too, no processor.
"""

import argparse
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.remote.cluster import store
from benchmarks.remote.swapped import Swapped, swapped
from benchmarks.text import columns
from preswapd.demo.server import installed
from preswapd.units import PAGE_SIZE

ROUNDS, MEBIBYTES = 5, 192
DISK_MEBIBYTES = 250
RATES = ("pages/s", "stored %", "sets/s")
# Who spends, and on what: pages that left, or those of them that were set.
SPENT = {"server": "pages", "courier": "sets", "nodes": "sets"}
# What is seen of one shrink, by name.
Seen = Mapping[str, float]


def main() -> None:
    arguments = parsed()
    size, disk = arguments.mib << 20, arguments.disk << 20
    found: dict[str, list[Seen]] = defaultdict(list)
    with store() as cluster, ExitStack() as stack:
        before = str((arguments.folder / ".venv/bin/preswapd").resolve())
        ways = []
        for name, program in (("before", before), ("after", installed("preswapd"))):
            one = stack.enter_context(swapped(cluster, size, program=program, written=disk))
            ways += [(name, one, True), (f"{name}, no store", one, False)]
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            for name, one, used in random.sample(ways, len(ways)):
                cluster.empty()
                found[name].append(shrunk(one, used))
    print(table(found))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--mib", type=int, default=MEBIBYTES, help="of pages")
    parser.add_argument("--disk", type=int, default=DISK_MEBIBYTES, help="0: as fast as it is")
    return parser.parse_args()


def shrunk(swapped: Swapped, used: bool) -> Seen:
    """All pages leave memory at once, with the store or without."""
    swapped.use_store(used)
    swapped.take_all_in()
    before, cpu = swapped.remote(), swapped.cpu()
    begun = time.monotonic()
    swapped.shrink(0)
    left = time.monotonic()
    swapped.wait_for_sets()
    ended = time.monotonic()
    spent = {who: seconds - cpu[who] for who, seconds in swapped.cpu().items()}
    sets = swapped.remote()["remote_sets"] - before["remote_sets"]
    pages = swapped.size // PAGE_SIZE
    return {
        "pages/s": pages / (left - begun),
        "stored %": 100 * sets / pages,
        # As long as there are some: the wait for the last of them is longer.
        "sets/s": sets / (ended - begun),
        "sets": sets,
        "pages": pages,
        **spent,
    }


# --- for people ---


def table(found: Mapping[str, Sequence[Seen]]) -> str:
    many = len(next(iter(found.values())))
    title = f"Medians of {many} rounds; processor time of all rounds for a page, in microseconds"
    heads = ("", *RATES, *(f"{who}, of {what}" for who, what in SPENT.items()))
    return columns(title, heads, [row(name, seen) for name, seen in sorted(found.items())])


def row(name: str, seen: Sequence[Seen]) -> list[str]:
    rates = (statistics.median(one[rate] for one in seen) for rate in RATES)
    spent = (mean_cost(seen, who, what) for who, what in SPENT.items())
    return [name, *(f"{rate:.0f}" for rate in rates), *spent]


def mean_cost(seen: Sequence[Seen], who: str, what: str) -> str:
    many = sum(one[what] for one in seen)
    return f"{1e6 * sum(one[who] for one in seen) / many:.1f}" if many else ""


if __name__ == "__main__":
    main()
