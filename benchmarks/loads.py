# SPDX-License-Identifier: BSD-3-Clause
"""Section `loads`: requests a second and latency under fio's loads, beside the peers.

All servers of a group run at once and are loaded in turn, so that each round shares the machine's
moods.  preswapd takes pages in as they are and compresses them right afterwards: the next load
waits until that is done, and its processor time counts.
"""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict

from benchmarks.awake import kept_awake
from benchmarks.groups import GROUPS, Group
from benchmarks.load import Load, run
from benchmarks.ratios import ByServer, median, ratio
from benchmarks.sections import Figures, Progress
from benchmarks.servers import Running, Server, running
from benchmarks.text import MIB, columns
from preswapd.errors import PreswapError

ROUNDS, SECONDS = 3, 0.7
QUICK_ROUNDS, QUICK_SECONDS = 1, 0.3

HEADS = ("", "1000/s", "ratio", "MiB/s", "median us", "p99 us", "CPU us/page", "rejected %")
# A server that is not there or fails is named under the table; the others go on.
FAULTS = (OSError, RuntimeError, PreswapError, subprocess.SubprocessError)


def measure(
    progress: Progress,
    quick: bool,
    *,
    rounds: int | None = None,
    seconds: float | None = None,
    only: str = "",
) -> Figures:
    """`only`: loads with this in their names; `seconds`: of each load in a round."""
    rounds = rounds or (QUICK_ROUNDS if quick else ROUNDS)
    seconds = seconds or (QUICK_SECONDS if quick else SECONDS)
    groups = {}
    for group in GROUPS:
        session = Session(group, only, progress)
        if session.loads:
            session.measure(rounds, seconds)
            groups[group.name] = session.figures()
    return {"rounds": rounds, "seconds": seconds, "groups": groups}


class Session:
    """One group of servers, while it is measured."""

    def __init__(self, group: Group, only: str, progress: Progress) -> None:
        self.group = group
        self.progress = progress
        # Each load with the servers that it is for.
        self.loads = {
            load: set(mix.servers or [server.name for server in group.servers])
            for mix in group.mixes
            for load in mix.loads
            if only in load.name
        }
        self.measured: dict[str, dict[str, list[dict[str, float]]]] = {
            load.name: {} for load in self.loads
        }
        self.missing: dict[str, str] = {}

    def measure(self, rounds: int, seconds: float) -> None:
        with ExitStack() as stack:
            filled = [] if self.group.fresh else list(self._filled(stack))
            if self.group.awake:
                stack.enter_context(kept_awake())
            for number in range(rounds):
                self.progress(f"{self.group.title}: round {number + 1} of {rounds}")
                if self.group.fresh:
                    self._fresh_round()
                else:
                    self._round(filled, seconds)

    def figures(self) -> Figures:
        return {
            "title": self.group.title,
            "peers": list(self.group.peers),
            "loads": self.measured,
            "missing": self.missing,
        }

    def _servers(self) -> list[Server]:
        wanted = set().union(*self.loads.values()) - self.missing.keys()
        return [server for server in self.group.servers if server.name in wanted]

    def _filled(self, stack: ExitStack) -> Iterator[Running]:
        """The servers, each of their pages written once."""
        for server in self._servers():
            self.progress(f"{self.group.title}: starting {server.name}")
            try:
                serving = stack.enter_context(running(server))
                run(serving, self.group.fill, None)
            except FAULTS as error:
                self.missing[server.name] = str(error)
            else:
                yield serving

    def _round(self, filled: Sequence[Running], seconds: float) -> None:
        for load in self.loads:
            for serving in filled:
                self._one(serving, load, seconds)

    def _fresh_round(self) -> None:
        for server in self._servers():
            try:
                with running(server) as serving:
                    for load in self.loads:
                        self._one(serving, load, None)
            except FAULTS as error:
                self.missing[server.name] = str(error)

    def _one(self, serving: Running, load: Load, seconds: float | None) -> None:
        name = serving.server.name
        if name not in self.loads[load] or name in self.missing:
            return
        try:
            one = run(serving, load, seconds)
        except FAULTS as error:
            # Its earlier rounds would no longer stand beside the others'.
            self.missing[name] = f"{load.name}: {error}"
            for by_server in self.measured.values():
                by_server.pop(name, None)
        else:
            self.measured[load.name].setdefault(name, []).append(asdict(one))


def table(figures: Figures) -> str:
    return "\n\n".join(part for group in figures["groups"].values() for part in group_tables(group))


def group_tables(group: Figures) -> Iterator[str]:
    peers = group["peers"]
    yield f"{group['title'].capitalize()}; ratios to the best of {', '.join(peers)}"
    for load, by_server in group["loads"].items():
        yield columns(load, HEADS, [row(by_server, server, peers) for server in by_server])
    if group["missing"]:
        lines = [f"  {server}: {why}" for server, why in group["missing"].items()]
        yield "\n".join(["Not measured:", *lines])


def row(by_server: ByServer, server: str, peers: Sequence[str]) -> list[str]:
    def of(figure: str) -> float:
        return median(by_server, server, figure)

    against = ratio(by_server, server, peers)
    return [
        server,
        f"{of('iops') / 1000:.1f}",
        "" if against is None else f"{against:.2f}",
        f"{of('rate') / MIB:.0f}",
        f"{of('median'):.0f}",
        f"{of('p99'):.0f}",
        f"{of('cpu'):.1f}",
        f"{100 * of('rejected'):.1f}" if of("rejected") else "",
    ]
