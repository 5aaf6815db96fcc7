# SPDX-License-Identifier: BSD-3-Clause
"""A real guest with two jobs that work in turn, and half of the pool that both need.

Each job is the store (store.c) with records of its own, of which it verifies each that it reads,
and in the end all.  While one works the other is stopped, and its memory is swapped out.  Everybody
does the same number of turns; how many is decided by how many preswapd does in the time given.
"""

import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.aging.contenders import FIRST, NO_ROOM, OURS
from benchmarks.guest_jobs import STORE, Material, Served, built_store, served, store
from benchmarks.guest_runs import WrongResultError
from benchmarks.guest_swaps import SIZE, ZRAM, Budget, DiskFile, Place, Preswapd, Swapping, Zram
from benchmarks.sections import Figures, Progress
from preswapd.errors import PreswapError
from preswapd.guest.faults import CommandError, GuestError
from preswapd.guest.kernel import default_cache, find_kernel
from preswapd.guest.memory import memory_leaving
from preswapd.guest.readings import swap_traffic

MIB = 1 << 20
JOBS = ("a", "b")
TURN_SECONDS = 600.0
START_SECONDS = 120.0
STOP_SECONDS = 60.0
# Of the slowest contender, where preswapd takes ten minutes.
LIFE_SECONDS = 3600.0


@dataclass(frozen=True)
class Scale:
    """Bytes of memory that a guest has for two jobs of so many MiB; requests of a turn."""

    available: int
    job_mib: int
    turn: int


# A job that works has nearly all the memory that it needs, once the other one's is swapped out.
FULL = Scale(64 * MIB, 64, 100_000)
QUICK = Scale(40 * MIB, 24, 5_000)


# --- who swaps where ---


class Aging(Preswapd):
    """preswapd, with as much pool as the budget says."""

    name = OURS
    life = LIFE_SECONDS

    def pool(self) -> int:
        return self.budget.pool or SIZE


class FirstVersion(Aging):
    name = FIRST
    options = (NO_ROOM,)


class LivingFile(DiskFile):
    life = LIFE_SECONDS


class ZramWithWriteback(Zram):
    """zram in a guest that is larger by the pool, and a file behind it for what is idle.

    The kernel writes back when it is told to: a loop in the guest does that when the pool is nearly
    used up, first with what was idle for ten seconds, then for less.  zram's own `mem_limit` is not
    set: a guest that swaps faster than the loop writes would get I/O errors.
    """

    name = "zram lz4, writeback"
    life = LIFE_SECONDS

    def start(self) -> None:
        self.boot_with_zram(self.raw_file(cached=False))
        self.turn_on(
            {
                f"{ZRAM}/comp_algorithm": "lz4",
                f"{ZRAM}/backing_dev": "/dev/sda",
                f"{ZRAM}/disksize": str(SIZE),
            }
        )
        self.guest.start("writeback", self.loop())

    def loop(self) -> str:
        full = self.budget.pool * 8 // 10
        used = f"set -- $(cat {ZRAM}/mm_stat); [ $3 -gt {full} ]"
        back = f"echo $age >{ZRAM}/idle; echo idle >{ZRAM}/writeback"
        return (
            f"while :; do for age in 10 3 1; do {used} || break; {back}; done; usleep 200000; done"
        )


ALL: tuple[type[Swapping], ...] = (Aging, FirstVersion, LivingFile, ZramWithWriteback)


# --- two jobs ---


class Pair:
    """Two stores in a guest, each stopped but for its turns."""

    def __init__(self, swapping: Swapping, scale: Scale) -> None:
        self.guest = swapping.guest
        self.jobs = {}
        for name in JOBS:
            command = store(scale.job_mib, 0, turn=scale.turn)
            script = f"echo $$ >/run/{name}.pid; exec {command}"
            self.jobs[name] = self.guest.start(name, f"sh -c '{script}'")
            self.next_line(name, 0, START_SECONDS)

    def turn(self, name: str, number: int) -> Served:
        """The first turn of a job is number 1; its line is behind the one that says "ready"."""
        self.go_on(name)
        line = self.next_line(name, number, TURN_SECONDS)
        try:
            return served(line)
        except ValueError:
            raise WrongResultError(f"job {name}: {line}") from None

    def next_line(self, name: str, before: int, seconds: float) -> str:
        """The line behind so many others of a job."""
        job = self.jobs[name]
        self.guest.run(
            f"while [ ! -e {job.status} ] && ! [ $(wc -l <{job.log}) -gt {before} ]; do"
            " sleep 0.2; done",
            seconds,
        )
        lines = self.guest.run(f"cat {job.log}").output.splitlines()
        if len(lines) <= before:
            raise GuestError(f"job {name} has ended: {lines[-1:]}")
        return lines[before]

    def go_on(self, name: str, before: str = "") -> None:
        """A job says that its turn is over, and then stops itself: not before it has."""
        self.guest.run(
            f"pid=$(cat /run/{name}.pid);"
            " while ! grep -q '^State:.T' /proc/$pid/status; do usleep 10000; done;"
            f" {before} kill -CONT $pid",
            STOP_SECONDS,
        )

    def end(self) -> None:
        """Both read all that they have once more."""
        for name, job in self.jobs.items():
            self.go_on(name, "kill -TERM $pid;")
            try:
                job.wait(TURN_SECONDS)
            except CommandError as error:
                raise WrongResultError(f"job {name}: {error}") from error


@dataclass(frozen=True)
class Turned:
    """All turns of one contender; bytes, pages and seconds.  `cpu`: QEMU's and the server's."""

    turns: list[float]
    requests_per_second: float
    p99: float
    swapped_in: int
    swapped_out: int
    written: int | None
    server_cpu: float
    memory: float | None  # per cent of swapped-in pages that came from the pool
    rejected: int | None

    @property
    def seconds(self) -> float:
        return sum(self.turns)


def turned(swapping: Swapping, scale: Scale, turns: int | None, seconds: float) -> Turned:
    """So many turns, or as many as begin within so many seconds; two at least."""
    pair = Pair(swapping, scale)
    # Both have worked once before anything is measured, and wait in swap for the next turn.
    for name in JOBS:
        pair.turn(name, 1)
    before, written, cpu = traffic(swapping), swapping.written(), swapping.server_cpu()
    pages = device(swapping)
    begun = time.monotonic()
    lines: list[Served] = []
    times: list[float] = []
    while len(lines) < (turns or 2) or (turns is None and time.monotonic() - begun < seconds):
        started = time.monotonic()
        lines.append(pair.turn(JOBS[len(lines) % 2], 2 + len(lines) // 2))
        times.append(time.monotonic() - started)
    now, written_now, pages_now = traffic(swapping), swapping.written(), device(swapping)
    cpu = swapping.server_cpu() - cpu
    pair.end()
    if troubles := swapping.guest.troubles():
        raise WrongResultError(f"the guest complains: {troubles[0]}")
    read = {name: pages_now[name] - pages[name] for name in pages}
    both = sum(read.get(name, 0) for name in ("loads", "disk_reads"))
    return Turned(
        times,
        len(lines) * scale.turn / sum(times),
        statistics.median(line.p99 for line in lines),
        now.swapped_in - before.swapped_in,
        now.swapped_out - before.swapped_out,
        None if written is None or written_now is None else written_now - written,
        cpu,
        100 * read["loads"] / both if both else None,
        read.get("failed_stores"),
    )


def traffic(swapping: Swapping) -> Any:
    return swap_traffic(swapping.guest.vmstat())


def device(swapping: Swapping) -> dict[str, int]:
    """preswapd's counters; none for others."""
    if not isinstance(swapping, Preswapd):
        return {}
    found: dict[str, Any] = dict(next(iter(swapping.server.client.devices().values())))
    return {name: found[name] for name in ("loads", "disk_reads", "failed_stores")}


# --- all of them ---


def measure(progress: Progress, quick: bool, options: tuple[str, ...], minutes: float) -> Figures:
    """`options`: further ones of `preswapd serve`."""
    scale = QUICK if quick else FULL
    cache = default_cache()
    with tempfile.TemporaryDirectory(prefix="preswapd-bench-", dir="/var/tmp") as folder:
        disk = Path(folder) / "nothing"
        disk.write_bytes(bytes(MIB))
        material = Material([], [], {STORE: built_store()}, disk)
        place = Place(find_kernel(cache), cache, material, Path(folder))
        memory = memory_leaving(scale.available, place.kernel, cache)
        progress("aging: two jobs in a guest, with a pool that takes both")
        needed, accelerator = need(place, memory, scale)
        budget = Budget(pool=needed // 2)
        found: dict[str, Any] = {}
        missing: dict[str, str] = {}
        turns = None
        for kind in ALL:
            progress(f"aging: two jobs in a guest in turn, {kind.name}")
            swapping = kind(place, memory, budget)
            if isinstance(swapping, Preswapd):
                swapping.options = (*options, *swapping.options)
            try:
                with swapping:
                    one = turned(swapping, scale, turns, 60 * minutes)
            except (GuestError, PreswapError) as error:
                missing[kind.name] = str(error)
                continue
            found[kind.name] = {**asdict(one), "seconds": one.seconds}
            turns = turns or len(one.turns)
    return {
        "needed": needed,
        "pool": needed // 2,
        "guest_memory": memory,
        "job_mib": scale.job_mib,
        "turn": scale.turn,
        "accelerator": accelerator,
        "found": found,
        "missing": missing,
    }


def need(place: Place, memory: int, scale: Scale) -> tuple[int, str]:
    """Bytes of pool that both jobs' pages take when each of them has worked, none on disk."""
    with Aging(place, memory, Budget()) as swapping:
        pair = Pair(swapping, scale)
        for name in JOBS:
            pair.turn(name, 1)
        taken = swapping.server.client.stats()["tmem"]["mem_used_total"]
        return taken, swapping.guest.accelerator
