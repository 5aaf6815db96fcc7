"""`make bench`: preswapd beside its peers, in one run; ratios, medians of several rounds.

python -m benchmarks [--rounds N] [--seconds S] [--json FILE]
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import recovery
from benchmarks.load import FILL, LOADS, Load, Measured, run
from benchmarks.servers import MEMORY, OURS, PEERS, available, running

Figures = dict[str, dict[str, list[Measured]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load in a round")
    parser.add_argument("--only", default="", help="loads with this in their names")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    loads = [load for load in LOADS if arguments.only in load.name]
    folder = Path(tempfile.mkdtemp(prefix="preswapd-bench-", dir="/dev/shm"))
    try:
        figures = measure(folder, loads, arguments.rounds, arguments.seconds)
        restart = recovery.measure(folder / "restart")
    finally:
        shutil.rmtree(folder)
    for load in loads:
        print_load(load, figures[load.name])
    gib = restart.stored / (1 << 30)
    print(f"\nfrom a start to an answer with {gib:.2f} GiB stored: {restart.seconds:.2f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(figures, restart), indent=1) + "\n")


def measure(folder: Path, loads: Sequence[Load], rounds: int, seconds: float) -> Figures:
    """All servers run at once and are loaded in turn, so that they share the machine's moods."""
    figures: Figures = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        addresses = {
            server.name: stack.enter_context(running(server, folder / f"s{number}"))
            for number, server in enumerate(available(PEERS + OURS))
        }
        for uri in addresses.values():
            run(uri, FILL, None)
        for number in range(rounds):
            for load in loads:
                for name, uri in addresses.items():
                    progress(f"round {number + 1} of {rounds}: {load.name}, {name}")
                    figures[load.name][name].append(run(uri, load, seconds))
    progress("")
    return figures


def progress(text: str) -> None:
    end = "" if sys.stderr.isatty() else "\n"
    start = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{start}{text}", end=end, file=sys.stderr, flush=True)


def best_memory(by_server: dict[str, list[Measured]]) -> float:
    """The best configuration of nbdkit's memory plugin, the peer of the ratios."""
    return max(median_iops(by_server[name]) for name in MEMORY)


def median_iops(measured: list[Measured]) -> float:
    return statistics.median(one.iops for one in measured)


def print_load(load: Load, by_server: dict[str, list[Measured]]) -> None:
    peer = best_memory(by_server)
    print(f"\n{load.name}, {load.compressible} % compressible")
    print(f"  {'server':20} {'1000/s':>8} {'ratio':>6} {'median us':>10} {'p99 us':>8}")
    for name, measured in by_server.items():
        iops = median_iops(measured)
        median = statistics.median(one.median for one in measured)
        p99 = statistics.median(one.p99 for one in measured)
        print(f"  {name:20} {iops / 1000:8.1f} {iops / peer:6.2f} {median:10.1f} {p99:8.1f}")


def as_json(figures: Figures, restart: recovery.Restart) -> dict[str, object]:
    return {
        "processors": os.cpu_count(),
        "loads": {
            load: {name: [vars(one) for one in measured] for name, measured in by_server.items()}
            for load, by_server in figures.items()
        },
        "restart": vars(restart),
    }


if __name__ == "__main__":
    main()
