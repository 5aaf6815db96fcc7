# SPDX-License-Identifier: BSD-3-Clause
"""What a shrink is to reach: so many pages left, none left that is idle, or a limit kept."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from preswapd.api.settings import NO_LIMIT
from preswapd.preswap.device._device import Device
from preswapd.preswap.sysctl import Sysctl
from preswapd.tmem import Host

# A pool's memory shrinks a little less than its pages do, as they leave holes: so this much more
# of the pages goes.
MARGIN = 0.02
# How far other memory of a cgroup may grow while the pool gives some back, and how long it may take
# until what was given back is no more counted there.
LITTLE_MORE = 4 << 20
LAG_SECONDS = 0.05
# What a shrink into a cgroup calls the limit that it is to keep.
MEMORY_MAX = "memory.max"


class Goal(ABC):
    """Pages leave these devices until `is_met()`; `target()` is how many may stay."""

    word = "shrink"  # what operators call it
    setting: str | None = None  # the key of the limit, None of a shrink that was asked for
    device: str | None = None  # the name of the one device, None: all
    subject: Device | None = None  # that device: another one may get its name later
    idle: float | None = None  # only pages that were not touched for so many seconds; None: any

    @abstractmethod
    def devices(self) -> Sequence[Device]: ...

    @abstractmethod
    def target(self) -> int:
        """May change from call to call, as an operator changes a limit."""

    def left(self) -> int:
        return pages_in(self.devices())

    def is_met(self) -> bool:
        return self.left() <= self.target()

    def above(self) -> int:
        """How many pages may go now, at most."""
        return self.left() - self.target()

    def takes_all(self) -> bool:
        """Whichever pages may go, go: so none must come before another."""
        return self.target() == 0

    def move(self, device: Device, extent: int, most: int) -> tuple[int, int, int]:
        """Some pages of an extent, to disk: as Device.writeback()."""
        return device.writeback(extent, most)

    def aim(self) -> None:  # noqa: B027 - most have nothing to measure
        """Called before each round of moves: measures what the target depends on."""

    @contextmanager
    def held_down(self) -> Iterator[None]:
        """Inside, no new page enters tmem above the target.  A limit sees to that itself."""
        yield

    def conclude(self, complete: bool) -> str | None:
        """What is to be done at its end, held down; why that could not be done, or None.

        complete: all that was to go has gone.
        """
        return None


class ToPages(Goal):
    """A number of pages, in one device or in all."""

    def __init__(self, sysctl: Sysctl, devices: Sequence[Device], pages: int, name: str | None):
        self.sysctl = sysctl
        self.chosen = devices
        self.pages = pages
        self.device = name

    def devices(self) -> Sequence[Device]:
        return self.chosen

    def target(self) -> int:
        return self.pages

    @contextmanager
    def held_down(self) -> Iterator[None]:
        if self.device is None:
            self.sysctl.host.set_max_pages(self.sysctl.pool, self.pages)
        else:
            self.sysctl.hold_down(self.chosen[0], self.pages)
        try:
            yield
        finally:
            if self.device is None:
                self.sysctl.host.set_max_pages(self.sysctl.pool, NO_LIMIT)
            else:
                self.sysctl.let_go(self.chosen[0])


class ToDisk(ToPages):
    """All pages on disk, and the maps of the devices saved: what a reboot of the host needs."""

    word = "sync"

    def __init__(
        self,
        sysctl: Sysctl,
        devices: Sequence[Device],
        name: str | None,
        save: Callable[[Sequence[Device], bool], str | None],
    ) -> None:
        super().__init__(sysctl, devices, 0, name)
        self.save = save

    def conclude(self, complete: bool) -> str | None:
        return self.save(self.chosen, complete)


class ToIdle(Goal):
    """None left that had not been touched for so long when it was asked for, in one device or all.

    Counted from that moment on: a page that gets as old meanwhile stays, or it might never end.
    """

    idle: float

    def __init__(self, devices: Sequence[Device], seconds: float, name: str | None) -> None:
        self.chosen = devices
        self.idle = seconds
        self.device = name
        self.asked_at = time.monotonic()
        self.may_stay = 0  # until it was measured

    def devices(self) -> Sequence[Device]:
        return self.chosen

    def seconds(self) -> float:
        return self.idle + time.monotonic() - self.asked_at

    def target(self) -> int:
        """As it was measured last: that takes a look at each page."""
        return min(self.left(), self.may_stay)

    def aim(self) -> None:
        self.may_stay = self.left() - self.idle_pages()

    def idle_pages(self) -> int:
        pages = 0
        for device in self.chosen:
            with suppress(OSError):  # it is being removed, and its pages go with it
                pages += device.ages([self.seconds()])[0][0]
        return pages

    def is_met(self) -> bool:
        return self.idle_pages() == 0

    def above(self) -> int:
        """Which pages go is decided by their ages, and not by how many there are."""
        return self.left()

    def takes_all(self) -> bool:
        return True

    def move(self, device: Device, extent: int, most: int) -> tuple[int, int, int]:
        return device.writeback_idle(extent, self.seconds(), most)


class ToQuota(Goal):
    """A device within its quota, whatever that is by then."""

    subject: Device

    def __init__(self, setting: str, sysctl: Sysctl, device: Device) -> None:
        self.setting = setting
        self.sysctl = sysctl
        self.subject = device
        self.device = device.name

    def devices(self) -> Sequence[Device]:
        return [self.subject]

    def target(self) -> int:
        return min(self.left(), self.sysctl.quota_of(self.subject))


class ToPoolLimit(Goal):
    """The pool's memory within its limit: bytes, and how many pages that is can only be estimated.

    A round estimates by the average page, and ends when the memory is within the limit.
    """

    def __init__(self, setting: str, host: Host, devices: Callable[[], Sequence[Device]]) -> None:
        self.setting = setting
        self.host = host
        self.devices_now = devices
        self.aimed_at: int | None = None
        self.may_stay = 0

    def devices(self) -> Sequence[Device]:
        return self.devices_now()

    def is_met(self) -> bool:
        return self.used() <= self.host.limit

    def used(self) -> int:
        return self.host.stats()["mem_used_total"]

    def target(self) -> int:
        if self.is_met():
            return self.left()
        if self.aimed_at != self.host.limit:
            self.measure()
        return self.may_stay

    def aim(self) -> None:
        # What is only to be packed or given back needs no page to go.
        self.host.maintain(all=True)
        self.measure()

    def measure(self) -> None:
        self.aimed_at = self.host.limit
        share = min(1.0, self.aimed_at / max(1, self.used()))
        self.may_stay = int(self.left() * share * (1 - MARGIN))


class Owing(NamedTuple):
    """Bytes: what clients may take, what the pool has, and what the cgroup is too small by."""

    promised: int
    used: int
    owed: int


class ToCgroup(ToPoolLimit):
    """The pool's memory so small that its cgroup has room for all that clients may come to take.

    Until then it has a lower limit, a cap: what is freed is given back, and not filled again.
    """

    def __init__(
        self,
        host: Host,
        devices: Callable[[], Sequence[Device]],
        promised: Callable[[], int],
    ) -> None:
        """`promised`: see Instance.fit_cgroup."""
        super().__init__(MEMORY_MAX, host, devices)
        self.promised = promised
        self.is_held = False
        self.cap = 0
        self.first: Owing | None = None
        self.most_owed = 0

    def is_met(self) -> bool:
        if self.is_held and self.used() <= self.cap and self.host.owed():
            time.sleep(LAG_SECONDS)
        return self.host.owed() == 0

    def target(self) -> int:
        # Who was to have the memory may have left by now.
        is_reached = self.used() <= self.cap or self.host.owed() == 0
        return self.left() if is_reached else self.may_stay

    def aim(self) -> None:
        self.measure()
        if self.is_held:
            self.host.set_cap(self.cap)
            self.host.maintain(all=True)
            self.measure()

    def measure(self) -> None:
        """Shared memory is charged to the cgroup that touched it first, which may be another: so
        little more goes than was owed, and what clients were promised that came since."""
        now = Owing(self.promised(), self.used(), self.host.owed())
        while (promised := self.promised()) != now.promised:  # a client has come or gone meanwhile
            now = Owing(promised, self.used(), self.host.owed())
        first = self.first = self.first or now
        used, owed = now.used, now.owed
        came_since = max(now.promised - first.promised, 0)
        self.most_owed = max(self.most_owed, owed, first.owed + came_since)
        least = first.used - self.most_owed - LITTLE_MORE
        self.cap = max(0, used - owed, least)
        self.may_stay = int(self.left() * min(1.0, self.cap / max(1, used)) * (1 - MARGIN))

    @contextmanager
    def held_down(self) -> Iterator[None]:
        self.is_held = True
        try:
            yield
        finally:
            self.is_held = False
            self.host.set_cap(None)


def pages_in(devices: Sequence[Device]) -> int:
    """Without those of a device that is being removed: they go by themselves and cannot move."""
    return sum(device.preswap_pages for device in devices if not device.is_stopped)
