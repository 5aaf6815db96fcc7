# SPDX-License-Identifier: BSD-3-Clause
"""What the log says about guests: clients that come and go, and puts and reads that go wrong.

A request must not wait for the log, so requests only count; once a second the counters are compared
with those of the second before.  What goes wrong often does so at every request: such a burst has
one line when it begins, and one with its figures when it is over.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from preswapd.api.figures import Statistics
from preswapd.log import ERROR, INFO, NOTICE, WARNING
from preswapd.preswap.instance import Instance
from preswapd.server.arrivals import Arrivals
from preswapd.server.exports import ClientCount, Exports
from preswapd.server.gate import A_SECOND
from preswapd.units import format_size

WATCH_SECONDS = 1.0
# A burst is over when the counter has not changed for this long.
QUIET_SECONDS = 60.0


class Trouble(NamedTuple):
    """A counter of things that go wrong, with what to say of it."""

    key: str  # names the burst
    counter: int
    priority: int
    begins: str
    ends: str  # with {count} and {seconds}


@dataclass
class Burst:
    """What a counter was when its burst began, and when it last changed."""

    counted: int
    told: int
    began: float
    moved: float


class GuestLog:
    """Looks at the counters of one instance, and logs what has changed."""

    def __init__(
        self,
        instance: Instance,
        exports: Exports,
        clock: Callable[[], float] = time.monotonic,
        arrivals: Arrivals | None = None,
    ) -> None:
        self.instance = instance
        self.exports = exports
        self.arrivals = arrivals
        self.clock = clock
        self.clients: dict[str, ClientCount] = {}
        self.counted: dict[str, int] = {}
        self.bursts: dict[str, Burst] = {}
        self.counters: tuple[int, ...] = ()

    def look(self) -> None:
        for name, count in list(self.exports.clients.items()):
            before = self.clients.get(name, ClientCount(0, 0))
            if count != before:
                self.clients[name] = count
                self.tell_clients(name, before, count)
        # All figures take a third of a millisecond, which an idle guest should not cost.
        seen, self.counters = self.counters, self.instance.activity.counters()
        if self.bursts or self.counters != seen:
            for trouble in troubles(self.instance.stats()):
                self.follow(trouble)
        if self.arrivals is not None:
            for trouble in of_strangers(self.arrivals):
                self.follow(trouble)

    def tell_clients(self, name: str, before: ClientCount, now: ClientCount) -> None:
        came, went = now.came - before.came, now.went - before.went
        changes = [
            *([f"{clients(came)} connected"] if came else []),
            *([f"{clients(went)} disconnected"] if went else []),
        ]
        self.instance.log(INFO, f"{name}: {', '.join(changes)}, {now.open} now")

    def follow(self, trouble: Trouble) -> None:
        now = self.clock()
        before = self.counted.get(trouble.key, 0)
        self.counted[trouble.key] = trouble.counter
        burst = self.bursts.get(trouble.key)
        if trouble.counter > before:
            if burst is None:
                self.bursts[trouble.key] = Burst(before, trouble.counter, now, now)
                self.instance.log(trouble.priority, trouble.begins)
            else:
                burst.moved = now
        elif burst is not None and now - burst.moved >= QUIET_SECONDS:
            del self.bursts[trouble.key]
            # A burst that was over within one second has been logged already.
            if trouble.counter > burst.told:
                count, seconds = trouble.counter - burst.counted, burst.moved - burst.began
                text = trouble.ends.format(count=count, seconds=f"{seconds:.0f}")
                self.instance.log(trouble.priority, text)


def troubles(stats: Statistics) -> Iterator[Trouble]:
    """Errors of the disk files have lines of their own, see preswap/maintenance.py."""
    tmem = stats["tmem"]
    used = f"{format_size(tmem['mem_used_total'])} of {format_size(tmem['mem_limit'])} in use"
    why = "it is frozen" if tmem.get("frozen") else used
    went_on = "{count} pages went to disk within {seconds} s"
    yield Trouble(
        "pool_limit_hit",
        tmem["pool_limit_hit"],
        NOTICE,
        f"tmem takes no more pages ({why}): they go to disk",
        f"tmem takes pages again: {went_on}",
    )
    yield Trouble(
        "reject_alloc_fail",
        tmem["reject_alloc_fail"],
        WARNING,
        f"the host or a cgroup has no memory to spare for tmem ({used}): pages go to disk",
        f"the host or a cgroup had no memory to spare for tmem: {went_on}",
    )
    yield Trouble(
        "checksum_errors",
        tmem["checksum_errors"],
        ERROR,
        "a damaged or lost page was read: the guest got an I/O error",
        "damaged or lost pages: {count} reads within {seconds} s were I/O errors",
    )
    for name, device in stats["devices"].items():
        yield Trouble(
            f"unknown_reads of {name}",
            device["unknown_reads"],
            WARNING,
            f"{name}: a page was read that no guest has written as far as is known: an I/O error",
            f"{name}: {{count}} reads of unknown pages within {{seconds}} s were I/O errors",
        )


def of_strangers(arrivals: Arrivals) -> Iterator[Trouble]:
    for reason, count, host in arrivals.refusals():
        yield Trouble(
            f"refused over TCP: {reason}",
            count,
            WARNING,
            f"a client at {host} was refused: {reason}",
            f"{{count}} clients were refused within {{seconds}} s: {reason}",
        )
    yield Trouble(
        "held up over TCP",
        arrivals.gate.times_full,
        WARNING,
        f"clients over TCP come faster than they are taken, {A_SECOND} a second: they wait, and"
        " guests that connect now among them",
        "clients over TCP came faster than they were taken, for {seconds} s",
    )


def clients(number: int) -> str:
    return "a client" if number == 1 else f"{number} clients"
