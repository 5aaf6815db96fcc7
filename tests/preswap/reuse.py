# SPDX-License-Identifier: BSD-3-Clause
"""How far apart the uses of pages are, in full and in plain Python; and guests to compare with.

What preswapd/preswap/device/sampler.h says of a read's distances, of all pages and not of a sample.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

READ, WRITE, TRIM = range(3)
# As in sampler.c.
TAKEN_AS_READ = 1024

Event = tuple[int, int]  # what is done, and to which page


@dataclass
class Full:
    """The distances of all reads, and what they are made from."""

    pool: list[int] = field(default_factory=list)
    least: list[int] = field(default_factory=list)
    most: list[int] = field(default_factory=list)
    unseen: int = 0
    read_again: int = 0
    not_read_again: int = 0
    # The last use of each page: when, and whether it was a write; and all of these times in order.
    last: dict[int, tuple[int, bool]] = field(default_factory=dict)
    used: list[int] = field(default_factory=list)
    out: list[int] = field(default_factory=list)
    now: int = 0
    # How many pages each one stands for.
    scale: int = 1

    def feed(self, events: Iterable[Event]) -> "Full":
        for event in events:
            self.note(*event)
        return self

    def note(self, op: int, page: int) -> None:
        self.now += 1
        before = self.last.pop(page, None)
        if before is not None:
            self.leave(op, *before)
        elif op == READ:
            self.unseen += self.scale
        if op != TRIM:
            self.last[page] = (self.now, op == WRITE)
            self.used.append(self.now)
            if op == WRITE:
                self.out.append(self.now)

    def leave(self, op: int, time: int, is_out: bool) -> None:
        at = bisect_left(self.used, time)
        if op == READ:
            self.measure(len(self.used) - at - 1, len(self.out) - bisect_right(self.out, time))
        if is_out:
            del self.out[bisect_left(self.out, time)]
        elif op == READ:
            self.read_again += self.scale
        else:
            self.not_read_again += self.scale
        del self.used[at]

    def measure(self, used: int, out: int) -> None:
        again = self.read_again + TAKEN_AS_READ
        known = again + self.not_read_again
        maybe = (used - out) * min(2 * again, known) // known
        for distances, others in ((self.pool, used), (self.least, out + maybe), (self.most, out)):
            distances.append(others * self.scale + 1)


def share(distances: list[int], pages: int) -> float:
    """Of reads whose distance is no more."""
    return sum(distance <= pages for distance in distances) / len(distances)


def swapping(
    accesses: Iterable[tuple[int, bool]], memory: int, *, keeps_slots: bool
) -> Iterator[Event]:
    """What a guest asks of its disk that has so many pages of memory, and puts out what it has not
    used for longest.

    accesses: pages, and whether they are changed.  keeps_slots: what was read and not changed is
    put out again without a write, as Linux does it while less than half of the swap is used.
    """
    inside: OrderedDict[int, bool] = OrderedDict()
    slots: set[int] = set()
    for page, changes in accesses:
        if page in inside:
            inside[page] = inside.pop(page) or changes
            continue
        if page in slots:
            yield READ, page
        if len(inside) == memory:
            gone, is_changed = inside.popitem(last=False)
            if is_changed or gone not in slots:
                slots.add(gone)
                yield WRITE, gone
        inside[page] = changes or page not in slots or not keeps_slots
