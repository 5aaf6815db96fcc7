# SPDX-License-Identifier: BSD-3-Clause
"""Section `governor`: instances give memory back while another program takes it.

Eight instances with full pools, and a program that takes 250 MiB of the host's memory a second
until the pools have to give back most of theirs: how soon the first page leaves, how long the host
has less than its reserve, beside what `dd` needs to write as many bytes to the same disk, and how
near each instance is to its share then.  After that, the same instances under a constant load: how
often a limit goes up and down.  And what the governor itself takes, for 32 instances.

The host's memory is what it really has; only the reserve is chosen so that it is crossed.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.aging.patterns import MEAN_BYTES, worked, written
from benchmarks.aging.player import Player, build
from benchmarks.aging.runs import AROUND
from benchmarks.host_usage import run_seconds, written_by
from benchmarks.sections import Figures, Progress
from benchmarks.servers import Running, end, folders, preswapd, serving_from, start
from benchmarks.shrinking import FILLED, dd_rate, dd_source
from benchmarks.text import columns, mib
from preswapd.demo.server import installed
from preswapd.govern.readings import Host
from preswapd.host.children import Child
from preswapd.units import PAGE_SIZE, exact_size

MIB = 1 << 20
BLOCK = 512
LOOK_SECONDS, LONG_LOOK_SECONDS = 0.01, 0.1
DD_ROUNDS = 3
PLOTTED = 10  # one of so many looks
REST_SECONDS = 5.0
RATE = 250 * MIB
# From the crossing on: by then shares are to be right.
SHARE_SECONDS = 30.0
# A pool that is full, as it is filled: a twentieth of it is kept free.
FULL_SHARE = 0.94
# Where nothing but the arenas needs memory.
FLOOR = 8 * MIB
READY_SECONDS = 30.0
# Without a change of any limit: the governor looks each second.
SETTLED_SECONDS = 3.0
# Of each of the loaded ones; patterns.py has 3,000 a second.
LOAD_SPEED = 1 / 20


@dataclass(frozen=True)
class Size:
    """`beyond`: what the program may take before the reserve is crossed; `taken`: all it takes."""

    instances: int
    pool: int
    beyond: int
    taken: int
    steady_seconds: float
    idle: int
    idle_seconds: float


FULL = Size(8, 128 * MIB, 128 * MIB, 640 * MIB, 600.0, 32, 30.0)
QUICK = Size(2, 96 * MIB, 64 * MIB, 128 * MIB, 3.0, 2, 3.0)


@dataclass(frozen=True)
class Look:
    """Bytes at one moment: what the host has available, what the pools take, what went to disk."""

    at: float
    available: int
    pools: int
    to_disk: int


def measure(progress: Progress, quick: bool) -> Figures:
    size = QUICK if quick else FULL
    with folders() as (folder, disk):
        program = build(disk)
        with instances(size.instances, size.pool, folder, disk) as serving:
            progress(f"{size.instances} pools are filled")
            fill(serving, size, program)
            figures = taken_back(progress, serving, size, folder, disk)
            figures["steady"] = steady(progress, serving, size, program, folder)
    with folders() as (folder, disk), instances(size.idle, 16 * MIB, folder, disk):
        figures["cpu"] = {}
        for where, share in (("far", 0.1), ("near", 0.6)):
            progress(f"{size.idle} idle instances, {where} from the reserve")
            figures["cpu"][where] = cost(size, folder, int(share * available()))
    figures["idle"] = size.idle
    return figures


# --- instances, and what is seen of them ---


@contextmanager
def instances(number: int, pool: int, folder: Path, disk: Path) -> Iterator[list[Running]]:
    pages = pages_of(pool)
    size = exact_size(2 * (pages * PAGE_SIZE + AROUND))
    with ExitStack() as stack:
        begun = []
        for which in range(number):
            server = preswapd("lz4", str(pool), size, instance=name_of(which))
            child = start(server, folder, disk)
            stack.callback(end, server, folder, child)
            begun.append((server, child))
        yield [serving_from(server, folder, child, READY_SECONDS) for server, child in begun]


def name_of(number: int) -> str:
    return f"vm{number + 1}"


def weight_of(number: int) -> int:
    """Every other one has twice the weight."""
    return 100 * (1 + number % 2)


def pages_of(pool: int) -> int:
    return int(FULL_SHARE * pool / MEAN_BYTES)


def fill(serving: Sequence[Running], size: Size, program: Path) -> None:
    for one in serving:
        with player(one, program) as client:
            client.play(written(range(pages_of(size.pool))))
        one.settle()


def player(one: Running, program: Path, speed: float = 1.0) -> Player:
    return Player(program, one.folder / one.server.socket, one.server.export, speed)


def available() -> int:
    """As the governor counts it."""
    return Host().available()


def look(serving: Sequence[Running], folder: Path) -> Look:
    arenas = (path.stat().st_blocks * BLOCK for path in folder.glob("shm/*/arena"))
    to_disk = sum(written_by(one.process) or 0 for one in serving)
    return Look(time.monotonic(), available(), sum(arenas), to_disk)


# --- the governor ---


@contextmanager
def governor(folder: Path, reserve: int, number: int) -> Iterator[Child]:
    config = folder / "governor.toml"
    tables = [
        f'[instance.{name_of(which)}]\nweight = {weight_of(which)}\nfloor = "{exact_size(FLOOR)}"'
        for which in range(number)
    ]
    config.write_text("\n".join([f"reserve = {reserve}", *tables, ""]))
    log = folder / "governor.log"
    child = Child(
        [
            *(installed("preswapd"), "govern", f"--config={config}"),
            *(f"--instances={folder}/run", f"--runtime-dir={folder}/governor"),
        ],
        log,
    )
    try:
        child.watch(lambda: ("ready: " in log.read_text()) or None, READY_SECONDS)
        yield child
    finally:
        child.stop()


def settled(serving: Sequence[Running]) -> None:
    """Once no limit has changed for a while; the pool's own limit is none of the governor's."""
    deadline = time.monotonic() + READY_SECONDS
    seen, since = limits(serving), time.monotonic()
    while time.monotonic() < since + SETTLED_SECONDS:
        if time.monotonic() > deadline:
            raise RuntimeError("the governor does not settle")
        time.sleep(LONG_LOOK_SECONDS)
        if (now := limits(serving)) != seen:
            seen, since = now, time.monotonic()


def limits(serving: Sequence[Running]) -> list[int]:
    """Bytes, of each."""
    return [one.tmem()["mem_limit"] for one in serving]


# --- a program takes memory ---


def taken_back(
    progress: Progress, serving: Sequence[Running], size: Size, folder: Path, disk: Path
) -> Figures:
    reserve = available() - size.beyond
    with governor(folder, reserve, len(serving)):
        settled(serving)
        before = look(serving, folder)
        progress(f"a program takes {mib(size.taken)} MiB")
        with ended(Child([sys.executable, "-m", "benchmarks.taker", str(size.taken), str(RATE)])):
            looks = watched(serving, folder, reserve)
            shared, used = limits(serving), [one.tmem()["mem_used_total"] for one in serving]
    crossed = crossing(looks, reserve)
    moved = looks[-1].to_disk - before.to_disk
    return {
        "reserve": reserve,
        "taken": size.taken,
        "beyond": size.beyond,
        "first_page": first_page(looks, before, crossed),
        "short": seconds_below(looks, reserve),
        "moved": moved,
        "dd": dd_seconds(moved, folder, disk),
        "shares": [
            {"weight": weight_of(number), "limit": limit, "used": took, "fair": fair}
            for number, (limit, took, fair) in enumerate(
                zip(shared, used, fair_shares(shared), strict=True)
            )
        ],
        "looks": [[one.at - crossed, one.available, one.pools] for one in looks[::PLOTTED]],
    }


@contextmanager
def ended(taker: Child) -> Iterator[None]:
    """The one who takes memory, while the `with` block lasts; nobody else may have ended it."""
    try:
        yield
        if taker.status is not None:
            raise RuntimeError(f"the program that takes memory ended: status {taker.status}")
    finally:
        taker.kill()


def watched(serving: Sequence[Running], folder: Path, reserve: int) -> list[Look]:
    """From now until half a minute after the reserve was crossed."""
    looks = [look(serving, folder)]
    crossed: float | None = None
    while looks[-1].at - (crossed or looks[0].at) < SHARE_SECONDS:
        time.sleep(LOOK_SECONDS)
        looks.append(look(serving, folder))
        if crossed is None and looks[-1].available < reserve:
            crossed = looks[-1].at
    return looks


def crossing(looks: Sequence[Look], reserve: int) -> float:
    for one in looks:
        if one.available < reserve:
            return one.at
    raise RuntimeError("the reserve was not crossed: something else gave memory back")


def first_page(looks: Sequence[Look], before: Look, crossed: float) -> float:
    """Seconds after the crossing; below 0 where the pools made room before it."""
    for one in looks:
        if one.to_disk > before.to_disk:
            return one.at - crossed
    # The reserve was crossed, but not by what is measured: while others take and give memory here,
    # the pools may have given theirs before, or had no need to.
    raise RuntimeError("no page has left: it takes a host on which nothing else comes and goes")


def seconds_below(looks: Sequence[Look], reserve: int) -> float:
    return sum(later.at - one.at for one, later in pairwise(looks) if one.available < reserve)


def taking(figures: Mapping[str, Any]) -> float:
    """Seconds in which the program takes what was not to spare: no disk is so fast that the host
    could have its reserve before they are over."""
    return float((figures["taken"] - figures["beyond"]) / RATE)


def dd_seconds(size: int, folder: Path, disk: Path) -> float:
    """What dd needs for as many bytes."""
    source = dd_source(folder)
    rates = [dd_rate(source, disk, min(size, FILLED)) for _ in range(DD_ROUNDS)]
    source.unlink()
    return size / 1e6 / statistics.median(rates)


def fair_shares(found: Sequence[int]) -> list[float]:
    """The floor for each, and the rest by weight; none is at its cap here, and all want more."""
    weights = [weight_of(number) for number in range(len(found))]
    rest = sum(found) - len(found) * FLOOR
    return [FLOOR + rest * weight / sum(weights) for weight in weights]


# --- a constant load ---


def steady(
    progress: Progress, serving: Sequence[Running], size: Size, program: Path, folder: Path
) -> Figures:
    """Pages are read and rewritten in all instances; the limits, once a second."""
    progress(f"a constant load for {size.steady_seconds:.0f} s")
    seen: list[list[int]] = []
    with ExitStack() as stack:
        reserve = available() - size.beyond
        stack.enter_context(governor(folder, reserve, len(serving)))
        settled(serving)
        players = [stack.enter_context(player(one, program, LOAD_SPEED)) for one in serving]
        pages = range(pages_of(size.pool))
        for client in players:
            client.play(written(pages))
        for number, client in enumerate(players):
            client.begin(worked(pages, size.steady_seconds * LOAD_SPEED, number))
        begun = time.monotonic()
        while time.monotonic() - begun < size.steady_seconds:
            seen.append(limits(serving))
            time.sleep(1.0)
        for client in players:
            client.end()
    turns = [reversals([one[number] for one in seen]) for number in range(len(serving))]
    return {"seconds": size.steady_seconds, "reversals": turns, "limits": seen}


def reversals(values: Sequence[int]) -> int:
    """How often a limit that went up went down next, or the other way round."""
    steps = [later - one for one, later in pairwise(values) if later != one]
    return sum((one > 0) != (later > 0) for one, later in pairwise(steps))


# --- what it takes itself ---


def cost(size: Size, folder: Path, reserve: int) -> float:
    """Of one processor."""
    with governor(folder, reserve, size.idle) as child:
        time.sleep(REST_SECONDS)
        before, begun = run_seconds(child.pid), time.monotonic()
        time.sleep(size.idle_seconds)
        return (run_seconds(child.pid) - before) / (time.monotonic() - begun)


# --- for people ---


def table(figures: Figures) -> str:
    return "\n\n".join([taken_table(figures), shares_table(figures), cost_table(figures)])


def taken_table(figures: Figures) -> str:
    rows = [
        ["first page leaves, s after the crossing", f"{figures['first_page']:.2f}"],
        ["less than the reserve, s", f"{figures['short']:.2f}"],
        ["went to disk meanwhile, MiB", mib(figures["moved"])],
        ["dd of as much, s", f"{figures['dd']:.2f}"],
        ["the program takes what was not to spare, s", f"{taking(figures):.2f}"],
    ]
    title = (
        f"{len(figures['shares'])} instances with full pools; a program takes"
        f" {mib(figures['taken'])} MiB of the host's memory, {mib(RATE)} MiB a second"
    )
    return columns(title, ("", ""), rows)


def shares_table(figures: Figures) -> str:
    turns = figures["steady"]["reversals"]
    rows = [
        [
            name_of(number),
            str(one["weight"]),
            *(mib(one[name]) for name in ("fair", "limit", "used")),
            str(turns[number]),
        ]
        for number, one in enumerate(figures["shares"])
    ]
    title = (
        f"MiB of each {SHARE_SECONDS:.0f} s after the crossing; how often its limit turned in"
        f" {figures['steady']['seconds']:.0f} s of constant load"
    )
    return columns(title, ("", "weight", "share", "limit", "takes", "turns"), rows)


def cost_table(figures: Figures) -> str:
    rows = [[where, f"{100 * share:.2f}"] for where, share in figures["cpu"].items()]
    title = f"The governor of {figures['idle']} idle instances, % of one processor"
    return columns(title, ("reserve", ""), rows)


def shares_off(figures: Mapping[str, Any]) -> float:
    """The largest distance of a limit from its share, to the share."""
    found = [abs(one["limit"] - one["fair"]) / one["fair"] for one in figures["shares"]]
    return float(max(found))


def plot(figures: Figures, folder: Path) -> list[Path]:
    from benchmarks.plots import canvas, saved

    figure, axes = canvas()
    for at, name in ((1, "available to the host"), (2, "taken by the pools")):
        times = [one[0] for one in figures["looks"]]
        axes.plot(times, [one[at] / MIB for one in figures["looks"]], label=name)
    axes.axhline(figures["reserve"] / MIB, color="black", linewidth=1, label="the reserve")
    axes.set_xlabel("seconds after the reserve was crossed")
    axes.set_ylabel("MiB")
    axes.legend()
    return [saved(figure, folder / "governor.png")]
