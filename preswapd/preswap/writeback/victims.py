# SPDX-License-Identifier: BSD-3-Clause
"""Which pages go to disk where room is short: the policy "touch".

The heaviest sixteenth goes, in offset order; a page weighs its age times the memory that it takes
(device/weights.h).  What was touched since they were weighed stays, and what lies beside those that
go and is nearly as heavy goes along: the less room is left, the more, so that a fast guest finds
some.  In simulations of recorded swap traffic, with half the memory that guests needed, 71 % of
reads came from memory and 36 pages went to disk for each 100 written; 55 and 46 where new pages are
rejected.
"""

import math
from collections.abc import Collection, Sequence

from preswapd.preswap.device._device import EXTENT_PAGES, Device, least_weight

SIXTEENTH = 16
# What lies beside a victim goes along from this part of its weight on, where no room is left.
LEAST_BESIDE = 0.25
# Steps of weight to a doubling.
STEPS = 16
# A write of so many pages takes a disk hardly longer than one of a few.
ONE_WRITE = 32
# A page comes back from disk if it weighed less than this part of what goes: back at every read
# costs 4 points of those 71 %, and a fourth more writes.
WORTH_COMING_BACK = 0.5


class Victims:
    """Those of some devices, weighed again when they have gone."""

    def __init__(self) -> None:
        self.devices: list[Device] = []
        self.page = 0  # of the first of them
        self.least = 0
        self.one_write = 1  # pages that may go along, whatever is wanted

    def weigh(self, devices: Sequence[Device], since: int) -> int | None:
        """Begins anew.  Below which weight a page may come back; None: there is no page to go."""
        pages_of = [0] * 256
        self.devices, self.page = [], 0
        for device in devices:
            try:
                found = device.weigh(since)
            except OSError:
                continue  # it is being removed
            self.devices.append(device)
            pages_of = [a + b for a, b in zip(pages_of, found, strict=True)]
        wanted = sum(pages_of) // SIXTEENTH + 1
        self.one_write = min(ONE_WRITE, wanted)
        for step in range(255, 0, -1):
            wanted -= pages_of[step]
            if wanted <= 0:
                self.least = step
                return int(least_weight(step) * WORTH_COMING_BACK)
        self.devices = []
        return None

    @property
    def are_there(self) -> bool:
        return bool(self.devices)

    def go(self, free: float, most: int = EXTENT_PAGES) -> tuple[int, int, Device | None]:
        """Those of one extent, and what goes along: pages moved, errno or 0, of which device.

        free: the part of the room that is there.  most: so many pages, or one write, if that is
        more.  None: all have gone, and are to be weighed again.
        """
        while self.devices:
            device = self.devices[0]
            try:
                self.page, moved, number = device.writeback_next_heavy(
                    self.page, self.least, beside(self.least, free), max(most, self.one_write)
                )
            except OSError:
                self.next_device()  # it is being removed
                continue
            if number or self.page >= device.pages:
                self.next_device()
            if number or moved:
                return moved, number, device
        return 0, 0, None

    def leave_out_all_but(self, devices: Collection[Device]) -> None:
        if self.devices and self.devices[0] not in devices:
            self.page = 0
        self.devices = [device for device in self.devices if device in devices]

    def next_device(self) -> None:
        self.devices, self.page = self.devices[1:], 0


def beside(least: int, free: float) -> int:
    part = LEAST_BESIDE + (1 - LEAST_BESIDE) * min(1.0, max(0.0, free))
    return max(1, least + round(STEPS * math.log2(part)))
