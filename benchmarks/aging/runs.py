# SPDX-License-Identifier: BSD-3-Clause
"""Requests played against one server: where its reads came from, and what it wrote to disk."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import storing
from benchmarks.aging.contenders import Contender
from benchmarks.aging.patterns import Pattern
from benchmarks.aging.player import Player
from benchmarks.aging.recordings import Most, lines
from benchmarks.sections import Figures
from benchmarks.servers import Running, Server, running
from preswapd.units import PAGE_SIZE

# More than all known pages of any recording take.
PLENTY = 1 << 30
# In front of the pages, and behind them: what guests read when they look for partitions.
AROUND = 2 * storing.START
# Who writes back does so again within this time, if there is more to do.
QUIET_SECONDS, REST_SECONDS = 0.4, 10.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Counted:
    """A server's counters at one time, in pages, seconds and bytes; 0 where it has none."""

    at: float
    memory: int  # pages read from memory
    disk: int  # pages read from the disk file
    written: int  # pages written to it
    cpu: float
    upkeep: float
    bytes_written: int | None


def counted(serving: Running) -> Counted:
    device = serving.device()
    memory, disk, written = (device.get(name, 0) for name in ("loads", "disk_reads", "disk_writes"))
    cpu, upkeep = serving.cpu(), serving.upkeep()
    return Counted(time.monotonic(), memory, disk, written, cpu, upkeep, serving.written())


@dataclass(frozen=True)
class Window:
    """One file of requests, played.

    `memory`: per cent of the pages read that came from memory; `disk`: pages written to disk for
    100 that the client wrote; None where nothing was read, or written.  `cpu`: of one processor,
    and `upkeep` of it what the server does by itself.
    """

    seconds: float
    late: float
    read: int
    written: int
    memory: float | None
    disk: float | None
    disk_pages: int
    bytes_written: int | None
    cpu: float
    upkeep: float
    read_us: tuple[float, float, float]
    write_us: tuple[float, float, float]
    # Seconds since its begin, pages read from memory and from disk, pages written to disk so far.
    series: list[tuple[float, int, int, int]]


def play(serving: Running, player: Player, requests: Iterable[str]) -> Window:
    """What the server does a moment later, as writing back goes on, counts too."""
    before = counted(serving)
    seen: list[Counted] = []

    def look() -> None:
        seen.append(counted(serving))

    played = player.play(requests, look)
    look()
    after = at_rest(serving)
    memory, disk = after.memory - before.memory, after.disk - before.disk
    pages = after.written - before.written
    if serving.server.control is None:
        disk, pages = played.read, played.written
    both_known = before.bytes_written is not None and after.bytes_written is not None
    return Window(
        played.seconds,
        played.late,
        played.read,
        played.written,
        100 * memory / (memory + disk) if memory + disk else None,
        100 * pages / played.written if played.written else None,
        pages,
        (after.bytes_written or 0) - (before.bytes_written or 0) if both_known else None,
        (after.cpu - before.cpu) / played.seconds,
        (after.upkeep - before.upkeep) / played.seconds,
        played.read_us,
        played.write_us,
        [
            (
                one.at - before.at,
                one.memory - before.memory,
                one.disk - before.disk,
                one.written - before.written,
            )
            for one in seen
        ],
    )


def at_rest(serving: Running) -> Counted:
    """The counters when nothing is compressed or written back any more."""
    serving.settle()
    begun = quiet_since = time.monotonic()
    now = counted(serving)
    while now.at - quiet_since < QUIET_SECONDS and now.at - begun < REST_SECONDS:
        time.sleep(POLL_SECONDS)
        before, now = now, counted(serving)
        if now.written != before.written:
            quiet_since = now.at
    return now


@contextmanager
def client(serving: Running, program: Path, speed: float = 1.0) -> Iterator[Player]:
    server = serving.server
    with Player(program, serving.folder / server.socket, server.export, speed) as player:
        yield player


# --- recorded requests ---


def footprint(known: Most, program: Path, contender: Contender) -> dict[str, int]:
    """Bytes that all known pages take in a real pool, at the time when they are largest.

    The pages themselves are written, with the sizes that were recorded, into a pool that has room
    for all; headers, rounding and slabs that are not full are in it.
    """
    with running(contender.server(PLENTY, disk_for(known))) as serving:
        with client(serving, program) as player:
            player.play(known.written())
        tmem = storing.at_rest(serving)
    return {"pages": tmem["stored_pages"], "bytes": tmem["mem_used_total"]}


def disk_for(known: Most) -> int:
    return known.disk_pages * PAGE_SIZE + AROUND


def replayed(name: str, server: Server, program: Path, speed: float) -> Figures:
    with running(server) as serving, client(serving, program, speed) as player:
        return asdict(play(serving, player, lines(name)))


# --- patterns ---


def patterned(pattern: Pattern, contender: Contender, pool: int, program: Path) -> Figures:
    """By window."""
    server = contender.server(pool, pattern.pages * PAGE_SIZE + AROUND)
    with running(server) as serving, client(serving, program) as player:
        return {
            window.name: asdict(play(serving, player, window.lines())) for window in pattern.windows
        }
