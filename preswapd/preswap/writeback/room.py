# SPDX-License-Identifier: BSD-3-Clause
"""Room in the pool for what guests write next: the cold goes to disk before anything is rejected.

The same for a device that has a quota: its own cold pages make room for its hot ones.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from preswapd.preswap.device._device import Device, Epochs
from preswapd.preswap.policy import Policy
from preswapd.preswap.writeback.moves import RETRY_SECONDS
from preswapd.preswap.writeback.victims import Victims
from preswapd.tmem import Host

# How long it waits for a pool that fills up, which wakes it, as whatever else happens does
# (activity.py).
WAIT_MILLISECONDS = 1000
# The same where there is something to do that wakes nobody: a quota, or idle writeback.
SOON_MILLISECONDS = 250
# And where nothing happens.
REST_MILLISECONDS = 60000
# How long it works before others that the thread looks after have their turn.
WORK_SECONDS = 0.1
# It goes to work for this part of the room at least: page by page, as a guest writes them, a third
# of its time went to finding out what is to be done.
BURSTS = 8
# Where all that might go was touched meanwhile, or may not go now: longer each time, as it takes
# 100 ms to weigh a million pages.
PAUSE_SECONDS, LONGEST_PAUSE = 0.05, 1.0
# While so many times the room is free nothing has to go: every page that is read from disk comes
# back.
PLENTY = 2.0

T = TypeVar("T")


@dataclass
class Within:
    """A pool or a device with a limit of its own: who goes from it, and what may come back."""

    victims: Victims = field(default_factory=Victims)
    comes_back: int | None = None  # weight; None: all that is read


class Room:
    """Keeps a part of the limit free; `turn()` is for a thread that does little else."""

    def __init__(
        self,
        host: Host,
        epochs: Epochs,
        policy: Policy,
        devices: Callable[[], Sequence[Device]],
        quota_of: Callable[[Device], int],
        may_move: Callable[[], bool],
        is_at_rest: Callable[[], bool] = lambda: False,
    ) -> None:
        self.host = host
        self.epochs = epochs
        self.policy = policy
        self.devices = devices
        self.quota_of = quota_of
        self.may_move = may_move
        self.is_at_rest = is_at_rest
        self.pool = Within()
        self.quotas: dict[Device, Within] = {}
        self.retry_at: dict[Device, float] = {}
        self.pause = PAUSE_SECONDS

    def patience(self) -> int:
        goes_idle = self.policy.writeback_idle is not None
        if self.is_at_rest():
            # Pages grow old where nothing happens.
            return WAIT_MILLISECONDS if goes_idle else REST_MILLISECONDS
        has_quota = any(self.quota_of(device) < device.pages for device in self.devices())
        return SOON_MILLISECONDS if has_quota or goes_idle else WAIT_MILLISECONDS

    def turn(self, milliseconds: int | None = None) -> None:
        """Waits until room is short, for so long at most, and then makes some."""
        share = self.policy.writeback_room
        spare = int(self.host.limit * share)
        self.host.set_spare(spare)
        wait = self.patience() if milliseconds is None else milliseconds
        lacking = self.host.lacking(wait)
        if lacking > 0:
            # What can be read again elsewhere goes before any page of a guest.
            self.host.make_spare()
            lacking = self.host.lacking()
        devices = self.devices()
        self.forget(devices)
        if not share:
            self.leave_all(devices)
            if lacking > 0:
                self.rest()  # above a lowered limit nothing is waited for
            return
        if spare - lacking + self.host.stats()["ephemeral_bytes"] >= PLENTY * spare:
            self.pool.comes_back = None
        may_move = self.may_move()
        if lacking <= 0 or (may_move and self.make_room(spare)):
            self.pause = PAUSE_SECONDS
        else:
            self.rest()
        for device in devices:
            if (quota := self.quota_of(device)) < device.pages:
                self.keep_quota(device, quota, share, may_move)
            else:
                self.quotas.pop(device, None)  # it was lifted
        self.tell(devices)

    def rest(self) -> None:
        time.sleep(self.pause)
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    # --- the pool ---

    def make_room(self, spare: int) -> bool:
        """Whether there is some now, or more than before."""
        until = time.monotonic() + WORK_SECONDS
        moved = 0
        self.host.compact()
        while (lacking := self.host.lacking()) > 0 and time.monotonic() < until:
            stats = self.host.stats()
            if stats["ephemeral_pages"] and self.evicts(stats["evicted_pages"]):
                continue
            # What a page takes, on average: the memory of those that go is in holes at first.
            each = max(64, stats["live_slot_bytes"] // max(1, stats["stored_pages"]))
            pages = max(lacking // each + 1, spare // each // BURSTS)
            gone = self.move(self.pool, self.movable(), pages, 1 - lacking / max(1, spare))
            moved += gone
            self.host.compact()
            if not gone:
                return moved > 0
        return True

    def evicts(self, before: int) -> bool:
        """Whether something went that can be read again elsewhere: a guest writes on while room is
        made, and no page of it may go before all of that has."""
        self.host.make_spare()
        return self.host.stats()["evicted_pages"] > before

    # --- a device ---

    def keep_quota(self, device: Device, quota: int, share: float, may_move: bool) -> None:
        within = self.quotas.setdefault(device, Within())
        room = max(1, int(quota * share))
        free = quota - device.preswap_pages
        if free >= PLENTY * room:
            within.comes_back = None
        elif free < room and may_move and device.preswap_pages:
            pages = max(room - free, room // BURSTS)
            self.move(within, self.movable([device]), pages, max(0, free) / room)

    # --- either ---

    def move(self, within: Within, devices: Sequence[Device], pages: int, free: float) -> int:
        """Moves at least so many, if there are, and time; how many it moved.

        A shrink that begins meanwhile moves the rest: together they would move twice as many.
        """
        until = time.monotonic() + WORK_SECONDS
        moved = 0
        weighed = False
        while moved < pages and self.may_move():
            if not within.victims.are_there:
                if weighed or not devices:
                    break
                weighed = True
                within.comes_back = within.victims.weigh(devices, self.epochs.begin())
                self.tell(devices)
            gone, number, device = within.victims.go(free, pages - moved)
            moved += gone
            if number and device is not None:
                self.retry_at[device] = time.monotonic() + RETRY_SECONDS
                break
            if time.monotonic() >= until:
                break
        return moved

    def movable(self, devices: Sequence[Device] | None = None) -> list[Device]:
        """Those whose disk has not failed just now."""
        now = time.monotonic()
        found = self.devices() if devices is None else devices
        return [device for device in found if self.retry_at.get(device, 0.0) <= now]

    def tell(self, devices: Sequence[Device]) -> None:
        """What may come back to each device, by the pool and by its quota."""
        for device in devices:
            own = self.quotas.get(device, self.pool)
            limits = [one.comes_back for one in (self.pool, own) if one.comes_back is not None]
            device.promoted_below = min(limits, default=None)

    def leave_all(self, devices: Sequence[Device]) -> None:
        """Nothing goes by itself, and nothing comes back, until room is kept free again."""
        self.pool, self.quotas = Within(), {}
        for device in devices:
            device.promoted_below = 0

    def forget(self, devices: Sequence[Device]) -> None:
        """A device that is served no more would stay in memory with its maps."""
        served = set(devices)
        self.pool.victims.leave_out_all_but(served)
        self.quotas = kept(self.quotas, served)
        self.retry_at = kept(self.retry_at, served)


def kept(found: Mapping[Device, T], served: set[Device]) -> dict[Device, T]:
    return {device: value for device, value in found.items() if device in served}
