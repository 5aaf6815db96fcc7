# SPDX-License-Identifier: BSD-3-Clause
"""A real guest that swaps is live-migrated again and again, with all that goes wrong meanwhile.

    .venv/bin/python -m tests.guest.migrations
    .venv/bin/python -m tests.guest.migrations --times 30 --seed 7

Two servers, and a guest whose memory says of each page what it must hold (stamps.c). It has memory
for half of that, and writes and reads all of it without end. Each time its device is made at the
other server (`create --from`), and it is migrated there. Before that, by turns, a migration fails:
it is cancelled, the QEMU over there is killed, the network is cut, or the QEMU over there is killed
when all has come and it was not started yet. The guest goes on where it was each time. Then, by
turns, either server is killed (kill -9) while the guest is on its way, or while its pages are
fetched, or the network between the servers is away when the guest comes. Every page is compared in
each round.

Another guest without swap is migrated after each of these, in the same way: what QEMU says of the
downtime is printed side by side.

Exit status 1 if a page was wrong, the guest had an I/O error, or something was left behind.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preswapd.guest.faults import GuestTimeoutError
from preswapd.guest.kernel import Kernel, default_cache, find_kernel
from preswapd.guest.machine import Job, Migration
from preswapd.units import PAGE_SIZE
from tests.guest.relay import Relay
from tests.guest.stamped import ASK, ENOUGH, SAID, Seen, StampedGuest, disk
from tests.guest.swapping import MIB, device
from tests.running import GUEST_PATIENCE, RunningServer, wait_for, wait_until

DISK = 256 * MIB
STAMPED, MEMORY = 24, 12  # MiB
LIFE_SECONDS = 3600.0
# A migration that something is to happen to must not be over before; then as fast as it can. With
# its own limit of 300 ms QEMU would wait in vain, on a busy host, for a guest that writes without
# end.
SLOW = {"max-bandwidth": 4 * MIB, "downtime-limit": 100}
FAST = {"max-bandwidth": 1 << 30, "downtime-limit": 2000}
# So that there is something to be fetched when a server is killed.
PULL_RATE = "1M"
ANSWER_SECONDS = 20.0
LOOK_SECONDS = 0.3

NONE = "none"
CANCELLED, KILLED, CUT, NOT_STARTED = (
    "cancelled",
    "QEMU over there killed",
    "network cut",
    "QEMU over there killed before it was started",
)
FAILURES = (NONE, CANCELLED, KILLED, CUT, NOT_STARTED)

SOURCE_ON_THE_WAY, TARGET_ON_THE_WAY, SOURCE_FETCHED, TARGET_FETCHED, AWAY = (
    "source's server killed on the way",
    "target's server killed on the way",
    "source's server killed while pages are fetched",
    "target's server killed while pages are fetched",
    "network between the servers away when it comes",
)
HARMS = (SOURCE_ON_THE_WAY, TARGET_ON_THE_WAY, SOURCE_FETCHED, TARGET_FETCHED, AWAY)

STOP = "/run/stop"
# Rounds without end; whoever asks is never behind.
LOAD = f"""
rounds=$(wc -l <{SAID})
while [ ! -e {STOP} ]; do
  printf wc >{ASK}
  rounds=$((rounds + 2))
  while [ $(wc -l <{SAID}) -lt $rounds ]; do usleep 100000; done
done
"""


class WrongError(Exception):
    """What the guest or a server said is not what it must be."""


def planned(number: int) -> tuple[str, str]:
    """What goes wrong in the move of this number: each with each in the end."""
    return FAILURES[(number + number // len(HARMS)) % len(FAILURES)], HARMS[number % len(HARMS)]


def check_rounds(rounds: Sequence[Seen], pages: int) -> None:
    """All of what a guest has said: every page right in each."""
    for number, seen in enumerate(rounds):
        if seen != Seen(seen.order, pages, 0, 0, 0, 0):
            raise WrongError(f"round {number} of the guest: {seen}")


@dataclass
class Record:
    """What happened so far; times in milliseconds, as QEMU has them."""

    downtimes: list[int] = field(default_factory=list)
    plain_downtimes: list[int] = field(default_factory=list)
    # Pages that were still to be fetched shortly before a server was killed.
    pending: list[int] = field(default_factory=list)
    failures: int = 0
    kills: int = 0
    pauses: int = 0
    rounds: int = 0
    fetched: int = 0
    swapped_out: int = 0
    swapped_in: int = 0

    def summary(self) -> str:
        mine, plain = statistics.median(self.downtimes), statistics.median(self.plain_downtimes)
        return (
            f"{len(self.downtimes)} migrations, {self.failures} that failed before,"
            f" {self.kills} servers killed; the guest was paused {self.pauses} times\n"
            f"  {self.rounds} rounds over all of its pages, {self.swapped_out} pages swapped out,"
            f" {self.swapped_in} in, {self.fetched} fetched: every byte right, no I/O error\n"
            f"  downtime, median: {mine:.0f} ms, without swap {plain:.0f} ms:"
            f" {mine / plain:.2f} times\n"
            f"  with swap {sorted(self.downtimes)}, without {sorted(self.plain_downtimes)}\n"
            f"  pages still to be fetched shortly before a kill: {self.pending}"
        )


class Moved(StampedGuest):
    """One whose load goes on while it moves."""

    def start_load(self) -> None:
        self.run(f"rm -f {STOP}")
        self.start("load", LOAD)

    def stop_load(self) -> None:
        self.run(f"touch {STOP}")
        Job(self, "load").wait(GUEST_PATIENCE)

    def goes_on(self) -> int:
        """Once it has done some rounds more; how often it was paused by an I/O error until then."""
        pauses, first = 0, None
        deadline = time.monotonic() + 2 * GUEST_PATIENCE
        while True:
            if self.state() == "io-error":
                pauses += 1
                self.resume()
            # One that is paused does not answer.
            with suppress(GuestTimeoutError):
                rounds = len(self.seen(ANSWER_SECONDS))
                first = rounds if first is None else first
                if rounds >= first + 2:
                    return pauses
            if time.monotonic() > deadline:
                raise WrongError(
                    f"the guest does not go on: {self.state()}, {self.stops()}, rounds {first}\n"
                    f"{self.console()}"
                )
            time.sleep(LOOK_SECONDS)

    def check(self) -> int:
        """All of its rounds so far, and its log; how many they were."""
        rounds = self.seen()
        check_rounds(rounds, self.stamped * MIB // PAGE_SIZE)
        if troubles := self.troubles():
            raise WrongError(f"the guest's log: {troubles}")
        return len(rounds)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Bench:
    """What guests are made of, and the sockets by which they move."""

    def __init__(self, kernel: Kernel, cache: Path, folder: Path, stack: ExitStack) -> None:
        self.kernel, self.cache, self.folder, self.stack = kernel, cache, folder, stack
        self.number = 0

    def guest(self, server: RunningServer, **options: Any) -> Moved:
        folder = self.folder
        guest = Moved(
            server, self.kernel, self.cache, folder, stamped=STAMPED, memory=MEMORY, **options
        )
        guest.life = LIFE_SECONDS
        return self.stack.enter_context(guest)

    def path(self, name: str) -> Path:
        """Of a socket that there was never before."""
        self.number += 1
        return self.folder / f"{name}{self.number}"


def is_active(seen: Migration) -> bool:
    return seen.get("status") == "active"


def has_failed(seen: Migration) -> bool:
    return seen.get("status") in ("failed", "cancelled")


def carried(guest: Moved, socket: Path, on_the_way: Callable[[], None]) -> Migration:
    """What QEMU says of it at the end."""
    guest.begin_to_migrate(f"unix:{socket}", **SLOW)
    wait_for(guest.migration, is_active)
    on_the_way()
    guest.limit_migration(**FAST)
    guest.migrated()
    # QEMU says that it is completed a moment before it knows this.
    return wait_for(guest.migration, lambda seen: seen["downtime"] > 0)


class Course:
    """A guest that swaps, the server that it is at, and the one that it goes to."""

    def __init__(
        self, bench: Bench, here: RunningServer, there: RunningServer, chance: random.Random
    ) -> None:
        self.bench, self.here, self.there = bench, here, there
        self.random = chance
        self.record = Record()
        self.guest = bench.guest(here)
        self.guest.fill()
        self.guest.start_load()

    def move(self, failure: str, harm: str) -> Migration:
        with Relay(self.bench.path("wire"), self.here.nbd_socket) as wire:
            self.announce(wire)
            if failure != NONE:
                self.fail(failure)
            socket = self.bench.path("moving")
            arriving = self.bench.guest(self.there, incoming=f"unix:{socket}")

            def on_the_way() -> None:
                if harm in (SOURCE_ON_THE_WAY, TARGET_ON_THE_WAY):
                    self.kill(self.here if harm == SOURCE_ON_THE_WAY else self.there)
                    self.guest.goes_on()
                if harm == AWAY:
                    wire.cut()

            moved = carried(self.guest, socket, on_the_way)
            self.guest.__exit__()
            self.guest = arriving
            if harm in (SOURCE_FETCHED, TARGET_FETCHED):
                come = wait_for(lambda: device(self.there), lambda seen: seen["guest"] == "here")
                self.record.pending.append(come["pending_pages"])
                self.kill(self.here if harm == SOURCE_FETCHED else self.there)
            if harm == AWAY:
                # Its first change has to take the device from there.
                wait_until(lambda: arriving.state() == "io-error", "the guest to be paused")
                wire.mend()
            self.record.pauses += arriving.goes_on()
            self.all_pulled()
        self.record.rounds = arriving.check()
        self.here, self.there = self.there, self.here
        self.record.downtimes.append(moved["downtime"])
        return moved

    def announce(self, wire: Relay) -> None:
        uri = f"nbd+unix:///g1?socket={wire.at}"
        wait_for(lambda: device(self.there)["connections"], lambda number: number == 0)
        self.there.ctl("create", "g1", str(DISK), "--from", uri, "--yes", "--force")
        self.there.ctl("pull", "g1", "--rate", PULL_RATE, "--no-wait")

    def fail(self, failure: str) -> None:
        """A migration that comes to nothing: the guest goes on where it is."""
        coming = self.bench.path("failing")
        hardware = [*disk(self.there, "scsi", report=False), "-S"]
        arriving = self.bench.guest(self.there, incoming=f"unix:{coming}", hardware=hardware)
        with Relay(self.bench.path("stream"), coming) as stream:
            if failure == NOT_STARTED:
                carried(self.guest, stream.at, lambda: None)
                arriving.kill()
                self.guest.resume()
            else:
                self.guest.begin_to_migrate(f"unix:{stream.at}", **SLOW)
                wait_for(self.guest.migration, is_active)
                time.sleep(self.random.uniform(0, 2))
                if failure == CANCELLED:
                    self.guest.cancel_migration()
                elif failure == KILLED:
                    arriving.kill()
                else:
                    stream.cut()
                wait_for(self.guest.migration, has_failed, GUEST_PATIENCE)
        arriving.__exit__()
        self.guest.goes_on()
        self.guest.check()
        source, target = device(self.here), device(self.there)
        where, kept = (
            (source["guest"], target["guest"]),
            DISK // PAGE_SIZE - target["pending_pages"],
        )
        if where != ("here", "coming") or kept:
            raise WrongError(
                f"after a migration that failed the guest is {where}, {kept} pages kept"
            )
        self.record.failures += 1

    def kill(self, server: RunningServer) -> None:
        """At some moment, and started again."""
        time.sleep(self.random.uniform(0, 0.5))
        self.count_swapped(server)
        server.kill()
        server.start()
        self.record.kills += 1

    def all_pulled(self) -> None:
        source = self.here
        self.there.ctl("pull", "g1", "--rate", "0", timeout=GUEST_PATIENCE)
        here = device(self.there)
        if here["pending_pages"] or here["guest"] != "here":
            raise WrongError(f"after the pull: {here}")
        wait_for(lambda: device(source)["guest"], lambda where: where == "here")
        if device(source)["preswap_pages"]:
            raise WrongError(f"the source has kept pages: {device(source)}")

    def count_swapped(self, server: RunningServer) -> None:
        """A server's counters end with it."""
        seen = device(server)
        self.record.swapped_out += seen["succ_stores"] + seen["failed_stores"]
        self.record.swapped_in += seen["loads"]
        self.record.fetched += seen["fetched_pages"]

    def end(self) -> None:
        self.guest.stop_load()
        self.guest.assert_all_right("cwc")
        self.record.rounds = self.guest.check()
        for server in (self.here, self.there):
            self.count_swapped(server)
        if self.record.fetched < ENOUGH or self.record.swapped_in < ENOUGH:
            raise WrongError(f"it has hardly swapped: {self.record}")


class PlainCourse:
    """A guest without swap, which stands still while it is not its turn."""

    def __init__(self, bench: Bench, server: RunningServer) -> None:
        """The server is not asked for anything."""
        self.bench, self.server = bench, server
        self.guest = bench.guest(server, hardware=[])
        self.guest.stamp()
        self.guest.start_load()
        self.guest.goes_on()
        self.guest.pause()

    def move(self) -> Migration:
        socket = self.bench.path("plain")
        arriving = self.bench.guest(self.server, incoming=f"unix:{socket}", hardware=[])
        self.guest.resume()
        moved = carried(self.guest, socket, lambda: None)
        self.guest.__exit__()
        self.guest = arriving
        arriving.goes_on()
        arriving.check()
        arriving.pause()
        return moved


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.guest.migrations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the moments of kills and cuts")
    given = parser.parse_args()
    cache = default_cache()
    kernel = find_kernel(cache)
    with tempfile.TemporaryDirectory(prefix="preswapd-migrations-") as name, ExitStack() as stack:
        folder = Path(name)
        first, second = (
            stack.enter_context(RunningServer(folder / where, {"g1": str(DISK)}))
            for where in ("one", "two")
        )
        bench = Bench(kernel, cache, folder, stack)
        try:
            course = Course(bench, first, second, random.Random(given.seed))
            run(course, PlainCourse(bench, first), given.times)
        except WrongError as error:
            note(f"wrong: {error}")
            return 1
    return 0


def run(course: Course, plain: PlainCourse, times: int) -> None:
    note("the guest swaps, and is migrated")
    for number in range(times):
        failure, harm = planned(number)
        moved = course.move(failure, harm)
        course.guest.pause()
        without = plain.move()
        course.guest.resume()
        course.record.plain_downtimes.append(without["downtime"])
        note(
            f"{number + 1}: failed before: {failure}; {harm}; {course.record.rounds} rounds right;"
            f" downtime {moved['downtime']} ms, without swap {without['downtime']} ms"
        )
    course.end()
    note(course.record.summary())


def note(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
