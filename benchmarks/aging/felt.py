# SPDX-License-Identifier: BSD-3-Clause
"""What a client and a guest feel of pages that leave memory beside them.

In turn: a while in which nothing else happens, and a while in which a second disk of the same pool
is written, page after page, so that as much has to leave.  The pool is full all the time.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.aging.contenders import FIRST, NO_ROOM, OURS, Contender
from benchmarks.aging.patterns import LEAST, MOST, worked, written
from benchmarks.aging.player import Player
from benchmarks.aging.runs import AROUND
from benchmarks.guest_jobs import STORE, Material, built_store
from benchmarks.guest_store import RunningStore
from benchmarks.guest_swaps import Budget, Place, Preswapd
from benchmarks.sections import Figures, Progress
from benchmarks.servers import running
from preswapd.errors import PreswapError
from preswapd.guest.kernel import default_cache, find_kernel
from preswapd.units import PAGE_SIZE, exact_size

MIB = 1 << 20
COLD = "cold"
# 16 MiB/s of pages: what writes to the second disk, and so what leaves for it.
COLD_PAGES_PER_SECOND = 4096
COLD_REQUEST = 8
HOT_SIZE = 128 * MIB
HOT_PAGES = 16 * MIB // PAGE_SIZE
GUEST_MEMORY = 128 * MIB
# Of 128 MiB a guest has 60 to spare.
GUEST_STORE_MIB = 120
GUEST_WRITES = 50


@dataclass(frozen=True)
class Scale:
    """Bytes of the pool and of the second disk, whose pages fill it."""

    pool: int
    cold: int
    pairs: int
    seconds: float


FULL = Scale(64 * MIB, 256 * MIB, pairs=5, seconds=4.0)
QUICK = Scale(48 * MIB, 128 * MIB, pairs=1, seconds=1.0)


class Cold:
    """Writes to the second disk, on and on over all of it."""

    def __init__(self, player: Player, size: int) -> None:
        self.player = player
        self.page = 0
        self.pages = (size - AROUND) // PAGE_SIZE

    def fill(self) -> None:
        self.player.play(written(range(self.pages)))

    def begin(self, seconds: float) -> None:
        self.player.begin(self.requests(seconds))

    def requests(self, seconds: float) -> Iterator[str]:
        gap = 10_000 * COLD_REQUEST / COLD_PAGES_PER_SECOND
        for _ in range(int(seconds * COLD_PAGES_PER_SECOND / COLD_REQUEST)):
            size = (LEAST + MOST) // 2
            yield f"{gap:.3f} W {self.page} {COLD_REQUEST} {f'{size:02x}' * COLD_REQUEST}\n"
            self.page = (self.page + COLD_REQUEST) % (self.pages - COLD_REQUEST)


@dataclass(frozen=True)
class Felt:
    """A while: the 99th percentile of a request, the server's share of a processor, its bytes.

    `upkeep`: the part of that share that it takes to write back.
    """

    p99: float
    cpu: float
    upkeep: float
    written: int | None


class Watch:
    """What the server takes from one time to another."""

    def __init__(
        self,
        cpu: Callable[[], float],
        upkeep: Callable[[], float],
        written: Callable[[], int | None],
    ) -> None:
        self.cpu = cpu
        self.upkeep = upkeep
        self.written = written

    def begins(self) -> None:
        self.before = time.monotonic(), self.cpu(), self.upkeep(), self.written()

    def ends(self, p99: float) -> Felt:
        begun, cpu, upkeep, written = self.before
        now, seconds = self.written(), time.monotonic() - begun
        return Felt(
            p99,
            (self.cpu() - cpu) / seconds,
            (self.upkeep() - upkeep) / seconds,
            None if now is None or written is None else now - written,
        )


def measure(progress: Progress, quick: bool, options: tuple[str, ...], program: Path) -> Figures:
    scale = QUICK if quick else FULL
    cold = f"--device={COLD}={exact_size(scale.cold)}"
    by_name = {OURS: (*options, cold), FIRST: (*options, NO_ROOM, cold)}
    found: dict[str, Any] = {"client": {}, "guest": {}, "missing": {}}
    for name, all_options in by_name.items():
        try:
            progress(f"aging: a client beside pages that leave, {name}")
            found["client"][name] = of_client(Contender(name, all_options), scale, program)
            progress(f"aging: a guest beside pages that leave, {name}")
            found["guest"][name] = of_guest(all_options, scale, program)
        except (RuntimeError, PreswapError) as error:
            found["missing"][name] = str(error)
    return found


def of_client(contender: Contender, scale: Scale, program: Path) -> Figures:
    """Reads of a hot set over NBD."""
    pairs = []
    with running(contender.server(scale.pool, HOT_SIZE)) as serving:
        socket = serving.folder / serving.server.socket
        with Player(program, socket, "bench") as hot, Player(program, socket, COLD) as other:
            cold = Cold(other, scale.cold)
            cold.fill()
            pages = range(HOT_PAGES)
            hot.play(written(pages))
            hot.play(worked(pages, scale.seconds, 0))
            watch = Watch(serving.cpu, serving.upkeep, serving.written)
            for number in range(scale.pairs):
                watch.begins()
                idle = hot.play(worked(pages, scale.seconds, 2 * number))
                before = watch.ends(idle.read_us[1])
                watch.begins()
                cold.begin(scale.seconds)
                meanwhile = hot.play(worked(pages, scale.seconds, 2 * number + 1))
                other.end()
                pairs.append([before, watch.ends(meanwhile.read_us[1])])
    return {"pairs": [[asdict(window) for window in pair] for pair in pairs]}


class Beside(Preswapd):
    """A guest whose pool is full, and has a second disk."""

    def pool(self) -> int:
        return self.budget.pool


def of_guest(options: tuple[str, ...], scale: Scale, program: Path) -> Figures:
    """Requests of a store (store.c) in a guest, half of whose memory is swapped."""
    cache = default_cache()
    pairs = []
    with tempfile.TemporaryDirectory(prefix="preswapd-bench-", dir="/dev/shm") as folder:
        disk = Path(folder) / "nothing"
        disk.write_bytes(bytes(MIB))
        material = Material([], [], {STORE: built_store()}, disk)
        place = Place(find_kernel(cache), cache, material, Path(folder))
        swapping = Beside(place, GUEST_MEMORY, Budget(pool=scale.pool))
        swapping.options = options
        with swapping:
            socket = swapping.server.paths.nbd_socket
            with Player(program, socket, COLD) as player:
                cold = Cold(player, scale.cold)
                cold.fill()
                store = RunningStore(swapping.guest, GUEST_STORE_MIB, GUEST_WRITES)
                watch = Watch(swapping.server_cpu, swapping.upkeep, swapping.written)
                for _ in range(scale.pairs):
                    pairs.append(guest_pair(store, cold, watch, scale.seconds))
        return {
            "pairs": [[asdict(window) for window in pair] for pair in pairs],
            "accelerator": swapping.guest.accelerator,
        }


def guest_pair(store: RunningStore, cold: Cold, watch: Watch, seconds: float) -> tuple[Felt, Felt]:
    store.window_ends()
    watch.begins()
    time.sleep(seconds)
    idle = watch.ends(store.window_ends().p99)
    watch.begins()
    cold.begin(seconds)
    cold.player.end()
    return idle, watch.ends(store.window_ends().p99)


def ratio(pairs: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    """Of the 99th percentiles, the median of the pairs."""
    ratios = [meanwhile["p99"] / idle["p99"] for idle, meanwhile in pairs if idle["p99"]]
    return float(statistics.median(ratios))
