# SPDX-License-Identifier: BSD-3-Clause
"""What the reads of guests say of a pool of another size, and of a guest with more memory.

device/sampler.h says how they are looked at.  Reads of the last twelve to twenty-four hours count,
so that a day has its part in it and last week has not.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

from preswapd.api.messages import Advice, GuestPoint, PoolPoint
from preswapd.preswap.device._device import Device, Sampler, step_pages
from preswapd.preswap.policy import Policy
from preswapd.tmem import Host
from preswapd.units import PAGE_SIZE

PERIOD_SECONDS = 12 * 3600.0
# Of fewer pages the mean is that of the memory around them.
FEW_PAGES = 256
# Points of a curve lie so many steps of a distance apart, eight to a doubling; from 16 pages on,
# where steps are whole pages.
STEPS_A_POINT, FIRST_POINT = 2, 32

Steps = Sequence[int]


class Advising:
    """Of one instance.  To be kept while something happens."""

    def __init__(
        self,
        sampler: Sampler,
        host: Host,
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sampler = sampler
        self.host = host
        self.policy = policy
        self.clock = clock
        # The period before, and the one under way.
        self.began = [clock()] * 2

    def keep(self) -> None:
        """Where nothing has happened for long more than one period is over."""
        while self.clock() - self.began[1] >= PERIOD_SECONDS:
            self.sampler.turn()
            self.began = [self.began[1], self.began[1] + PERIOD_SECONDS]

    def advice(self, devices: Sequence[Device]) -> Advice:
        self.keep()
        found = []
        for device in devices:
            with suppress(OSError):  # it is being removed
                found.append(device.reads())
        pool = added(one[0] for one in found)
        least = added(one[1] for one in found)
        most = added(one[2] for one in found)
        unseen = sum(one[3] for one in found)
        one_in, sampled_pages = self.sampler.state()
        stats = self.host.stats()
        page_bytes = None
        if stats["stored_pages"] >= FEW_PAGES:
            page_bytes = stats["mem_used_total"] / stats["stored_pages"]
        return Advice(
            seconds=round(self.clock() - self.began[0], 1),
            reads=sum(pool) + unseen,
            unseen=unseen,
            sampled_reads=sum(one[4] for one in found),
            sampled_pages=sampled_pages,
            one_in=one_in,
            trims=sum(device.stats()["trims"] for device in devices),
            pool_limit=stats["mem_limit"],
            page_bytes=page_bytes,
            pool=[
                PoolPoint(pages, self.pool_bytes(pages, page_bytes), share)
                for pages, share in curves(pool)
            ],
            guest=[
                GuestPoint(pages, pages * PAGE_SIZE, *shares)
                for pages, *shares in curves(least, most)
            ],
        )

    def pool_bytes(self, pages: int, page_bytes: float | None) -> int | None:
        """The limit of a pool that holds so many: a part of it is kept free."""
        if page_bytes is None:
            return None
        return round(pages * page_bytes / (1 - self.policy.writeback_room))


def added(counted: Iterable[Steps]) -> Steps:
    return [sum(counts) for counts in zip(*counted, strict=True)]


def curves(*counted: Steps) -> Iterator[tuple[Any, ...]]:
    """Pages, and for each the share of reads whose distance is no more: from where there are some,
    up to where all have all."""
    sums = [[0, *accumulate(counts)] for counts in counted]
    total = sums[0][-1]
    for step in range(FIRST_POINT, len(sums[0]), STEPS_A_POINT):
        at = [reads[step] for reads in sums]
        if any(reads[min(step + STEPS_A_POINT, len(reads) - 1)] for reads in sums):
            yield (int(step_pages(step)) - 1, *(reads / total for reads in at))
            if min(at) == total:
                return
