# SPDX-License-Identifier: BSD-3-Clause
"""Section `many`: a host has an instance for each of its guests, of which most are idle.

What an idle one costs beside 0, 9 and 99 others, how long they take to start all at once, and what
ten loaded ones reach among them; and up to eight loaded ones beside as many of nbdkit's memory
servers.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from benchmarks.groups import MEMORY, READ_16, WRITE_16
from benchmarks.host_usage import cpu_seconds, private_bytes, run_seconds, wakeups
from benchmarks.load import FILL, Load, fio
from benchmarks.ratios import median, ratio
from benchmarks.sections import Figures, Progress
from benchmarks.servers import Running, Server, end, folders, nbdkit, preswapd, serving_from, start
from benchmarks.text import columns, mib

IDLE, QUICK_IDLE = (1, 10, 100), (1, 2)
LOADED, QUICK_LOADED = 10, 2
BESIDE, QUICK_BESIDE = (1, 2, 4, 8), (1,)
WATCHED_SECONDS, QUICK_WATCHED = 10.0, 2.0
LOAD_SECONDS, QUICK_LOAD = 2.0, 0.3
ROUNDS, QUICK_ROUNDS = 3, 1
# What a start has left to do is done by then.
REST_SECONDS = 5.0
START_SECONDS = 300.0

DISK = "64M"
PART = "40m"  # of it, that is read and written
OURS = preswapd("lz4", pool=DISK, size=DISK)
PEERS = (
    nbdkit(MEMORY[0], "memory", DISK),
    nbdkit(MEMORY[1], "memory", DISK, threads=1),
)
LOADS = (READ_16, WRITE_16)


def measure(progress: Progress, quick: bool) -> Figures:
    idle = {}
    loaded = {}
    for number in QUICK_IDLE if quick else IDLE:
        progress(f"{number} idle instances")
        with all_running(OURS, number) as (serving, seconds):
            idle[str(number)] = cost(serving, quick) | {"ready": seconds}
            if number >= LOADED or quick:
                some = serving[: QUICK_LOADED if quick else LOADED]
                progress(f"{len(some)} of {number} instances loaded")
                loaded[str(number)] = loaded_at_once(some, quick)
    progress("nbdkit memory, idle")
    with all_running(PEERS[0], 1) as (serving, seconds):
        peer = cost(serving, quick) | {"ready": seconds}
    beside = list(compared(progress, quick))
    return {"idle": idle, "peer": peer, "loaded": loaded, "beside": beside}


# --- idle ones ---


@contextmanager
def all_running(server: Server, number: int) -> Iterator[tuple[list[Running], float]]:
    """So many of them, started at once, and the seconds until the last one answered."""
    with ExitStack() as stack:
        places = [stack.enter_context(folders()) for _ in range(number)]
        begun = time.monotonic()
        children = []
        for folder, disk in places:
            child = start(server, folder, disk)
            stack.callback(end, server, folder, child)
            children.append((folder, child))
        serving = [serving_from(server, folder, child, START_SECONDS) for folder, child in children]
        for one in serving:
            one.greet()
        yield serving, time.monotonic() - begun


def cost(serving: Sequence[Running], quick: bool) -> Figures:
    """Of one instance, on average."""
    number = len(serving)
    started = sum(cpu_seconds(one.process, with_children=True) for one in serving)
    time.sleep(REST_SECONDS)
    before = [(wakeups(one.process), run_seconds(one.process)) for one in serving]
    begun = time.monotonic()
    time.sleep(QUICK_WATCHED if quick else WATCHED_SECONDS)
    after = [(wakeups(one.process), run_seconds(one.process)) for one in serving]
    watched = (time.monotonic() - begun) * number
    pairs = list(zip(before, after, strict=True))
    return {
        "start_cpu": started / number,
        "private": sum(private_bytes(one.process) for one in serving) / number,
        "wakeups": sum(now[0] - then[0] for then, now in pairs) / watched,
        "cpu": sum(now[1] - then[1] for then, now in pairs) / watched,
    }


# --- loaded ones ---


def loaded_at_once(serving: Sequence[Running], quick: bool) -> dict[str, float]:
    """Requests a second of all of them together, by load."""
    together(serving, FILL, None)
    return {load.name: together(serving, load, seconds(quick)) for load in LOADS}


def together(serving: Sequence[Running], load: Load, seconds: float | None) -> float:
    def one(server: Running) -> float:
        job = fio(server.uri, load, seconds, PART)
        return float(sum(job[way]["iops"] for way in ("read", "write")))

    with ThreadPoolExecutor(len(serving)) as pool:
        done = sum(pool.map(one, serving))
    for server in serving:
        server.settle()
    return done


def seconds(quick: bool) -> float:
    return QUICK_LOAD if quick else LOAD_SECONDS


def compared(progress: Progress, quick: bool) -> Iterator[Figures]:
    """All servers run at once; those of one kind are loaded in turn with those of the others."""
    numbers = QUICK_BESIDE if quick else BESIDE
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with ExitStack() as stack:
        kinds = {
            server.name: stack.enter_context(all_running(server, max(numbers)))[0]
            for server in (*PEERS, OURS)
        }
        for serving in kinds.values():
            together(serving, FILL, None)
        for number in numbers:
            for load in LOADS:
                progress(f"{number} loaded of each: {load.name}")
                seen: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
                for _ in range(rounds):
                    for name, serving in kinds.items():
                        iops = together(serving[:number], load, seconds(quick))
                        seen[name].append({"iops": iops})
                yield {"number": number, "load": load.name, "servers": seen}


# --- for people ---


def table(figures: Figures) -> str:
    return "\n\n".join([idle_table(figures), loaded_table(figures), beside_table(figures)])


def idle_table(figures: Figures) -> str:
    named = {**{f"{n}": one for n, one in figures["idle"].items()}, MEMORY[0]: figures["peer"]}
    rows = [
        [
            name,
            mib(one["private"]),
            f"{one['wakeups']:.2f}",
            f"{1000 * one['cpu']:.2f}",
            f"{one['start_cpu']:.2f}",
            f"{one['ready']:.1f}",
        ]
        for name, one in named.items()
    ]
    heads = ("", "private MiB", "wake-ups/s", "CPU ms/s", "CPU s to start", "all ready after s")
    return columns("So many idle instances started at once; each of them costs", heads, rows)


def loaded_table(figures: Figures) -> str:
    heads = ("of so many", *(f"{load.name}, 1000/s" for load in LOADS))
    rows = [
        [number, *(f"{one[load.name] / 1000:.1f}" for load in LOADS)]
        for number, one in figures["loaded"].items()
    ]
    return columns(f"{LOADED} instances loaded while the others are idle", heads, rows)


def beside_table(figures: Figures) -> str:
    peers = [server.name for server in PEERS]
    heads = ("", "load", *peers, OURS.name, "ratio")
    rows = []
    for one in figures["beside"]:
        seen = one["servers"]
        rows.append(
            [
                str(one["number"]),
                one["load"],
                *(f"{median(seen, name, 'iops') / 1000:.1f}" for name in (*peers, OURS.name)),
                f"{ratio(seen, OURS.name, peers) or 0:.2f}",
            ]
        )
    return columns("So many loaded at once, 1000 requests a second of all together", heads, rows)
