# SPDX-License-Identifier: BSD-3-Clause
"""Whether anything happens in an instance: those who look after it sleep where nothing does.

A host may serve a hundred guests of which most are idle, and each wake-up takes a processor out of
its sleep.  Requests pay nothing for it: their counters are compared once a second.
"""

import threading
import time
from collections.abc import Callable, Sequence

from preswapd.preswap.device._device import Device
from preswapd.tmem import Host

# Between two turns of maintenance while something happens.
TURN_SECONDS = 0.25
# What happened is looked after for so long: memory goes back when it has been empty for a second.
AFTERWARDS_SECONDS = 3.0
# Where nothing happens there is a turn all the same: what failed is tried again after a minute.
LONGEST_SECONDS = 60.0


class Activity:
    """Of one instance, as its counters tell."""

    def __init__(self, host: Host, devices: Callable[[], Sequence[Device]]) -> None:
        self.host = host
        self.devices = devices
        self.seen = self.counters()
        self.last = time.monotonic()
        self.begun = threading.Event()
        self.resumed = threading.Event()

    def counters(self) -> tuple[int, ...]:
        """Equal ones: nothing has happened in between."""
        return (*self.host.stats().values(), *(device.events for device in self.devices()))

    def look(self) -> None:
        """To be called about once a second."""
        now = self.counters()
        if now != self.seen:
            self.seen = now
            self.note()

    def note(self) -> None:
        """Something happens, or has been changed by an operator."""
        self.last = time.monotonic()
        self.begun.set()
        self.resumed.set()
        self.host.wake()

    @property
    def is_over(self) -> bool:
        return time.monotonic() - self.last > AFTERWARDS_SECONDS

    def sleep(self, seconds: float) -> None:
        """For the recompression alone, with nothing to do: longer where nothing happens."""
        if self.is_over:
            self.resumed.wait(LONGEST_SECONDS)
            self.resumed.clear()
        else:
            time.sleep(seconds)

    def pause(self) -> None:
        """Before the next turn of maintenance."""
        if self.is_over:
            self.begun.wait(LONGEST_SECONDS)
            self.begun.clear()
        else:
            time.sleep(TURN_SECONDS)
