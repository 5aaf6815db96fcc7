# SPDX-License-Identifier: BSD-3-Clause
"""What nobody has used for long goes to disk, slowly, and only while the disk is at rest."""

import time
from collections.abc import Callable, Sequence
from math import inf

from preswapd.preswap.device._device import EXTENT_PAGES, Device, Epochs, step_seconds
from preswapd.preswap.policy import AUTO, Policy
from preswapd.preswap.writeback.moves import RETRY_SECONDS
from preswapd.units import PAGE_SIZE

# Pages that guests read from disk or write to it in a second, and more: it is busy with them.
BUSY = 64
# A look at all pages takes some 10 ms for each million: not more often than each tenth of the age.
LOOKS_AN_AGE = 10
LEAST_PAUSE = 1.0
# How long it looks in vain before others that the thread looks after have their turn.
LOOK_SECONDS = 0.1

# "auto": of the pages that are idle for so long, at most this part is read back in a minute.
READ_BACK = 0.002
SHORTEST_SECONDS = 60.0
MINUTE = 60.0
# What was a minute ago counts so much of what is now: ten minutes are half forgotten in seven.
FADING = 0.9
# Before that it does not know guests' habits.
MINUTES_BEFORE = 10


class Habits:
    """After how long guests read pages again: the shortest age that few come back from."""

    def __init__(self, epochs: Epochs, devices: Callable[[], Sequence[Device]]) -> None:
        self.epochs = epochs
        self.devices = devices
        self.before = epochs.reused()
        self.reads = [0.0] * len(self.before)  # in each step, faded
        self.minutes = 0.0  # that they are of, faded
        self.seen = 0
        self.next_minute = time.monotonic() + MINUTE
        self.found: float | None = None
        self.is_due = False

    def turn(self) -> None:
        if time.monotonic() >= self.next_minute:
            self.next_minute = time.monotonic() + MINUTE
            self.note_minute()

    def note_minute(self) -> None:
        now = self.epochs.reused()
        fresh = [a - b for a, b in zip(now, self.before, strict=True)]
        self.before = now
        self.reads = [old * FADING + new for old, new in zip(self.reads, fresh, strict=True)]
        self.minutes = self.minutes * FADING + 1
        self.seen += 1
        self.is_due = self.seen >= MINUTES_BEFORE

    @property
    def age(self) -> float | None:
        """None: it is not known yet, or however long pages lie idle, too many are read back."""
        if self.is_due:
            self.is_due = False
            self.found = self.shortest()
        return self.found

    def shortest(self) -> float | None:
        idle = [0] * len(self.reads)
        for device in self.devices():
            try:
                idle = [a + b for a, b in zip(idle, device.idle_pages(), strict=True)]
            except OSError:
                continue  # it is being removed
        for step in range(len(idle)):
            seconds = step_seconds(step)
            if seconds < SHORTEST_SECONDS or seconds > self.seen * MINUTE:
                continue
            if sum(self.reads[step:]) / self.minutes <= READ_BACK * sum(idle[step:]):
                return seconds
        return None


class Idle:
    """Idle writeback; `turn()` is to be called some times a second."""

    def __init__(
        self,
        epochs: Epochs,
        policy: Policy,
        devices: Callable[[], Sequence[Device]],
        may_move: Callable[[], bool],
    ) -> None:
        self.policy = policy
        self.devices = devices
        self.may_move = may_move
        self.habits = Habits(epochs, devices)
        self.looked_at = time.monotonic()
        self.found_none_at = -inf
        self.retry_at = -inf
        self.allowed = 0.0  # bytes
        self.traffic = 0
        self.under_way: list[Device] = []
        self.page = 0
        self.moved = 0

    def turn(self) -> bool:
        """Whether it is to be called again at once: pages moved, and the rate allows more."""
        self.habits.turn()
        now = time.monotonic()
        passed, self.looked_at = now - self.looked_at, now
        is_busy = self.is_busy(passed)
        self.allow(passed)
        age = self.age()
        if age is None:
            self.under_way = []  # nor would a device that is removed stay in memory
            return False
        if is_busy or now < self.next_look(age) or not self.may_move():
            return False
        if self.allowed < PAGE_SIZE:
            return False
        return self.move(age, now) > 0 and self.allowed >= PAGE_SIZE

    def age(self) -> float | None:
        """How old pages are that go: seconds."""
        idle = self.policy.writeback_idle
        if idle == AUTO:
            return self.habits.age
        assert not isinstance(idle, str)
        return idle

    def next_look(self, age: float) -> float:
        """For this age: another one may have been set since the last look."""
        return max(self.found_none_at + max(LEAST_PAUSE, age / LOOKS_AN_AGE), self.retry_at)

    def allow(self, passed: float) -> None:
        """By the rate; what was not used in a second is not kept."""
        rate = self.policy.writeback_rate
        if rate is None:
            self.allowed = inf
        else:
            self.allowed = min(self.allowed + rate * passed, rate)

    def is_busy(self, passed: float) -> bool:
        """With guests' requests."""
        traffic = sum(device.disk_traffic for device in self.devices())
        before, self.traffic = self.traffic, traffic
        return traffic - before > BUSY * passed

    def move(self, age: float, now: float) -> int:
        """How many it moved, of one extent."""
        if not self.under_way:
            self.under_way, self.page, self.moved = list(self.devices()), 0, 0
        until = time.monotonic() + LOOK_SECONDS
        while self.under_way:
            device = self.under_way[0]
            most = int(min(EXTENT_PAGES * PAGE_SIZE, self.allowed) // PAGE_SIZE)
            try:
                self.page, moved, number = device.writeback_next_idle(self.page, age, most)
            except OSError:
                self.next_device()  # it is being removed
                continue
            self.moved += moved
            self.allowed -= moved * PAGE_SIZE
            if number or self.page >= device.pages:
                self.next_device()
            if number:
                self.retry_at = now + RETRY_SECONDS
                return 0
            if moved or (self.under_way and time.monotonic() > until):
                return moved
        if not self.moved:
            self.found_none_at = now
        return 0

    def next_device(self) -> None:
        self.under_way, self.page = self.under_way[1:], 0
