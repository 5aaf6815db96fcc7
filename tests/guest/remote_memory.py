# SPDX-License-Identifier: BSD-3-Clause
"""A real guest whose cold memory lives in a cluster, whose nodes die and come back.

    .venv/bin/python -m tests.guest.remote_memory --times 20 --seed 7

The guest's memory says of each page what it must hold (stamps.c); it has memory for less than half
of that, and writes and reads all of it without end.  Again and again all that it swapped is moved
to disk, and so to the store, from where it comes back; then, by turns, a node is killed or hangs,
all of them are killed, or what they hold is dropped, and they come back.  Every page is compared in
each round.

Exit status 1 if a page was wrong, the guest had an I/O error, or nothing came from the store.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from preswapd.api.messages import ShrinkProgress
from preswapd.guest.kernel import Kernel, default_cache, find_kernel
from tests.guest.migrations import LIFE_SECONDS, Moved, WrongError, note
from tests.guest.stamped import ENOUGH
from tests.remote.stores import Cluster, server_program
from tests.running import RunningServer, wait_until

STAMPED, MEMORY = 16, 6  # MiB
# An answer that comes at all comes sooner, on a busy host too.
OPTIONS = ("--remote-timeout=200ms", "--writeback-room=25%")


def nobody_asks(step: ShrinkProgress) -> None:
    """How far a shrink is."""


# --- what happens to the store ---


def node_killed(cluster: Cluster, chosen: random.Random) -> None:
    chosen.choice(cluster.pairs())[0].kill()


def node_hangs(cluster: Cluster, chosen: random.Random) -> None:
    chosen.choice(cluster.pairs())[0].pause()


def all_killed(cluster: Cluster, chosen: random.Random) -> None:
    for node in cluster.nodes:
        node.kill()


def emptied(cluster: Cluster, chosen: random.Random) -> None:
    for master, _ in cluster.pairs():
        master("FLUSHALL")


Harm = Callable[[Cluster, random.Random], None]
HARMS: tuple[Harm, ...] = (node_killed, emptied, all_killed, node_hangs)


class Course:
    """The guest at work, its server, and the store."""

    def __init__(self, guest: Moved, cluster: Cluster, seed: int) -> None:
        self.guest, self.cluster = guest, cluster
        self.random = random.Random(seed)
        guest.fill()
        guest.start_load()

    @property
    def server(self) -> RunningServer:
        return self.guest.server

    def count(self) -> dict[str, Any]:
        return cast(dict[str, dict[str, Any]], self.server.client.stats())["remote"]

    def write_back(self) -> None:
        with self.server.client.shrink(0) as running:
            report = running.wait(nobody_asks)
        if report.lost:
            raise WrongError(f"a shrink ended with {report}")

    def turn(self, harm: Harm) -> None:
        """The guest's memory goes to the store, which comes to harm, and is well again."""
        self.comes_from_store()
        self.write_back()
        harm(self.cluster, self.random)
        self.goes_on()
        for node in self.cluster.nodes:
            if node.process is None:
                node.launch()
            else:
                node.go_on()
        wait_until(lambda: all(node.is_there() for node in self.cluster.nodes), "the nodes")
        wait_until(self.cluster.is_whole, "the cluster")
        self.goes_on()

    def comes_from_store(self) -> None:
        """What is moved to disk is read from there in the end, however busy the host is."""
        before = self.count()["remote_reads"]

        def has_come() -> bool:
            self.write_back()
            return bool(self.count()["remote_reads"] >= before + ENOUGH)

        wait_until(has_come, "pages to come from the store")

    def goes_on(self) -> None:
        if self.guest.goes_on():
            raise WrongError(f"the guest was paused by an I/O error: {self.guest.stops()}")
        self.guest.check()

    def end(self) -> str:
        """What was seen."""
        self.guest.stop_load()
        self.guest.assert_all_right("cwc")
        rounds, seen = self.guest.check(), self.count()
        if seen["remote_wrong"] or seen["remote_reads"] < ENOUGH:
            raise WrongError(f"of the store: {seen}")
        names = ("reads", "misses", "late", "away", "wrong", "sets")
        counts = ", ".join(f"{seen[f'remote_{name}']} {name}" for name in names)
        return f"{rounds} rounds over all pages, every byte right; of the store: {counts}"


@contextmanager
def begun(kernel: Kernel, cache: Path, folder: Path, seed: int) -> Iterator[Course]:
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(folder / "cluster"))
        options = [f"--remote-url={cluster.url}", *OPTIONS]
        server = stack.enter_context(RunningServer(folder, {"g1": "256M"}, "32M", options))
        guest = Moved(server, kernel, cache, folder, stamped=STAMPED, memory=MEMORY)
        guest.life = LIFE_SECONDS
        yield Course(stack.enter_context(guest), cluster, seed)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.guest.remote_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1, help="of which nodes are killed")
    given = parser.parse_args()
    if server_program() is None:
        print("no Redis or Valkey is installed (Debian: redis-tools)")
        return 2
    cache = default_cache()
    kernel = find_kernel(cache)
    with tempfile.TemporaryDirectory(prefix="preswapd-remote-memory-") as name:
        try:
            with begun(kernel, cache, Path(name), given.seed) as course:
                for number in range(given.times):
                    harm = HARMS[number % len(HARMS)]
                    course.turn(harm)
                    note(f"{number + 1}: {harm.__name__}; {course.count()['remote_reads']} reads")
                note(course.end())
        except WrongError as error:
            note(f"wrong: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
