# SPDX-License-Identifier: BSD-3-Clause
"""This checkout beside another one, to see what changes have cost.

    python -m benchmarks.before_after FOLDER [--rounds N] [--seconds S] [--json FILE]

FOLDER is a checkout in which `make build` was run.  Of each there are two servers; all four run at
once, and each round puts each load on one after the other, in a new order.  How far two of the same
checkout lie apart is what a difference between the two checkouts is worth.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

from benchmarks.groups import READ_1, READ_16, SWAP_IN, SWAP_OUT, WRITE_16
from benchmarks.load import FILL, Load, Measured, run
from benchmarks.servers import Running, Server, preswapd, running
from benchmarks.text import columns
from preswapd.demo.server import installed

LOADS = (READ_16, READ_1, WRITE_16, SWAP_OUT, SWAP_IN)
HEADS = ("after / before", "requests", "same: before", "after", "CPU", "same: before", "after")
ROUNDS, SECONDS = 15, 0.7
BEFORE, AFTER = ("before, a", "before, b"), ("after, a", "after, b")
# One round: by load and server.
Round = dict[str, dict[str, Measured]]


def main() -> None:
    arguments = parsed()
    servers = servers_of(arguments.folder)
    rounds = []
    with ExitStack() as stack:
        serving = []
        for server in servers:
            serving.append(stack.enter_context(running(server)))
            run(serving[-1], FILL, None)
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            rounds.append(one_round(serving, arguments.seconds))
    if arguments.json:
        found = [
            {
                load: {name: asdict(one) for name, one in by_server.items()}
                for load, by_server in each.items()
            }
            for each in rounds
        ]
        arguments.json.write_text(json.dumps(found, indent=1))
    print(table(rounds))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load in a round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if not (arguments.folder / ".venv/bin/preswapd").exists():
        parser.error(f"{arguments.folder} is no checkout that was built: make build")
    return arguments


def servers_of(folder: Path) -> list[Server]:
    ours = preswapd("lz4")
    other = tuple(
        str((folder / ".venv/bin/preswapd").resolve()) if word == installed("preswapd") else word
        for word in ours.command
    )
    return [
        *(replace(ours, name=name, command=other) for name in BEFORE),
        *(replace(ours, name=name) for name in AFTER),
    ]


def one_round(serving: Sequence[Running], seconds: float) -> Round:
    found: Round = {load.name: {} for load in LOADS}
    for load in LOADS:
        for one in random.sample(serving, len(serving)):
            found[load.name][one.server.name] = run(one, load, seconds)
    return found


# --- for people ---


def table(rounds: Sequence[Round]) -> str:
    title = f"Medians of {len(rounds)} rounds; processor time is for a page"
    return columns(title, HEADS, [row(load, rounds) for load in LOADS])


def row(load: Load, rounds: Sequence[Round]) -> list[str]:
    here = [each[load.name] for each in rounds]
    cells = [load.name]
    for figure in (lambda one: one.iops, lambda one: one.cpu):
        cells += [
            f"{ratio(here, AFTER, BEFORE, figure):.2f}",
            f"{ratio(here, BEFORE[:1], BEFORE[1:], figure):.2f}",
            f"{ratio(here, AFTER[:1], AFTER[1:], figure):.2f}",
        ]
    return cells


def ratio(
    rounds: Sequence[dict[str, Measured]],
    of: Sequence[str],
    to: Sequence[str],
    figure: Callable[[Measured], float],
) -> float:
    """The median of all pairs that are of one round."""
    return statistics.median(
        figure(each[one]) / figure(each[other]) for each in rounds for one, other in product(of, to)
    )


if __name__ == "__main__":
    main()
