# SPDX-License-Identifier: BSD-3-Clause
"""Looking at the same instances again and again, through their restarts."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from preswapd.api.client import Client
from preswapd.cli.instances import RunningInstance
from preswapd.cli.look.rows import Moment
from preswapd.errors import PreswapError, UnreachableError

Find = Callable[[], list[RunningInstance]]


@dataclass
class Watched:
    """One instance: its answer now and at the look before, or why there is none."""

    name: str
    client: Client
    now: Moment | None = None
    before: Moment | None = None
    away: PreswapError | None = None
    away_since: float = 0.0

    def look(self) -> None:
        self.before = self.now or self.before
        self.now = None
        asked = time.monotonic()
        try:
            stats = self.client.stats()
        except PreswapError as error:
            if self.away is None:
                self.away_since = time.monotonic()
            self.away = error
            return
        self.away = None
        self.now = Moment.of(stats, asked)
        self.name = stats["instance"]


class Watch:
    """All instances that `find` has ever named; one that is gone stays among them, as away."""

    def __init__(self, find: Find, patience: float | None = None) -> None:
        self.find = find
        self.patience = patience
        self.watched: dict[Path, Watched] = {}

    def look(self) -> list[Watched]:
        """UnreachableError while none has answered yet."""
        self.discover()
        for watched in self.watched.values():
            watched.look()
        found = list(self.watched.values())
        if not any(watched.now or watched.before for watched in found):
            raise UnreachableError("; ".join(str(watched.away) for watched in found))
        return found

    def discover(self) -> None:
        try:
            found = self.find()
        except UnreachableError:
            if not self.watched:
                raise
            return
        for instance in found:
            if instance.runtime_dir not in self.watched:
                client = Client(instance.client.socket_path, self.patience)
                self.watched[instance.runtime_dir] = Watched(instance.name, client)


def ticks(
    seconds: float, count: int | None, wait: Callable[[float], bool] | None = None
) -> Iterator[int]:
    """Yields the number of each turn: one now and one every `seconds`, however long a turn takes.

    It ends after `count` turns, or when `wait`, which is asked to wait for some seconds, says True.
    """
    start = time.monotonic()
    turn = 0
    while True:
        yield turn
        turn += 1
        if turn == count:
            return
        now = time.monotonic()
        # After a turn that took too long the next one comes at once, and those after it do not
        # make up for it.
        due = max(start + seconds, now)
        start = due
        if wait is None:
            time.sleep(due - now)
        elif wait(due - now):
            return


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Ctrl-C ends what is inside: it is how a watch is stopped, and no failure."""
    try:
        yield
    except KeyboardInterrupt:
        return
