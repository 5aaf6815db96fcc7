# SPDX-License-Identifier: BSD-3-Clause
"""What worker threads cost, beside nbdkit's memory plugin with as many of them.

    python -m benchmarks.threads [--threads N ...] [--rounds N] [--seconds S] [--json FILE]

All servers run at once, and each round puts each load on one after the other, in a new order.  What
nbdkit itself pays for threads, its memory plugin pays too: the ratio is what is ours.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.groups import READ_16, SWAP_OUT, WRITE_16
from benchmarks.load import FILL, run
from benchmarks.ratios import ByServer, median, ratio
from benchmarks.servers import Server, nbdkit, preswapd, running
from benchmarks.text import columns
from preswapd.host.nbdkit import THREADS

LOADS = (READ_16, WRITE_16, SWAP_OUT)
COUNTS = (1, 2, 4, THREADS)
ROUNDS, SECONDS = 7, 0.5
DISK = "288M"
HEADS = ("threads", "1000/s", "memory's", "ratio", "to its best", "CPU us/page", "memory's")
# By load.
Found = dict[str, dict[str, list[dict[str, float]]]]


def main() -> None:
    arguments = parsed()
    servers = [server for count in arguments.threads for server in (ours(count), peer(count))]
    found: Found = {load.name: {server.name: [] for server in servers} for load in LOADS}
    with ExitStack() as stack:
        serving = []
        for server in servers:
            serving.append(stack.enter_context(running(server)))
            run(serving[-1], FILL, None)
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            for load in LOADS:
                for one in random.sample(serving, len(serving)):
                    measured = run(one, load, arguments.seconds)
                    found[load.name][one.server.name].append(asdict(measured))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    print(tables(found, arguments.threads, arguments.rounds))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=COUNTS, metavar="N", help="for a connection"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load in a round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def ours(threads: int) -> Server:
    server = preswapd("lz4", size=DISK, options=(f"--threads={threads}",))
    return replace(server, name=f"preswapd, threads: {threads}")


def peer(threads: int) -> Server:
    return nbdkit(f"nbdkit memory, threads: {threads}", "memory", DISK, threads=threads)


# --- for people ---


def tables(found: Found, counts: Sequence[int], rounds: int) -> str:
    of_loads = [
        columns(load, HEADS, list(rows(by_server, counts))) for load, by_server in found.items()
    ]
    return "\n\n".join([f"Medians of {rounds} rounds", *of_loads])


def rows(by_server: ByServer, counts: Sequence[int]) -> Iterator[list[str]]:
    """Ratios to the peer with as many threads, and to the best one in the same round."""
    peers = [peer(count).name for count in counts]
    for count in counts:
        mine, its = ours(count).name, peer(count).name
        yield [
            str(count),
            *(f"{median(by_server, one, 'iops') / 1000:.1f}" for one in (mine, its)),
            *(f"{ratio(by_server, mine, those):.2f}" for those in ([its], peers)),
            *(f"{median(by_server, one, 'cpu'):.1f}" for one in (mine, its)),
        ]


if __name__ == "__main__":
    main()
