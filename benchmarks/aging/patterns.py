# SPDX-License-Identifier: BSD-3-Clause
"""Access patterns that a pool meets which is smaller than what is swapped, as requests to play.

All pages compress to 20 to 100 % of their size.  Single pages are read and rewritten at random
among those in use, one write for three reads, at a pace that a common cloud volume would stand.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from preswapd.units import PAGE_SIZE

REQUESTS_PER_SECOND = 3000
GAP = 10_000 / REQUESTS_PER_SECOND  # in units of 0.1 ms
WRITES = 0.25
LEAST, MOST = 51, 255  # of a page's size, in units of 16 bytes
# A page in the pool, with its header and rounding.
MEAN_BYTES = (LEAST + MOST) / 2 * 16 + 64
REQUEST_PAGES = 32
SCAN_PAGES = 8

Lines = Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Window:
    """A part of a pattern, told by itself; `shown`: it is what the pattern is about."""

    name: str
    lines: Lines
    shown: bool = True


@dataclass(frozen=True)
class Pattern:
    title: str
    windows: Sequence[Window]
    pages: int  # of the disk


@dataclass(frozen=True)
class Scale:
    """How large and how long: the pool, and seconds of each load."""

    pool: int
    hot_seconds: float
    phase_seconds: float
    scan_seconds: float
    scans: int

    def pages(self, share: float) -> int:
        """So many as take this share of the pool when they are compressed."""
        return int(share * self.pool / MEAN_BYTES)


FULL = Scale(64 << 20, hot_seconds=60.0, phase_seconds=20.0, scan_seconds=10.0, scans=3)
QUICK = Scale(16 << 20, hot_seconds=3.0, phase_seconds=1.5, scan_seconds=1.0, scans=1)
# Of a pool, filled three times over; of the original complaint: 16 MiB of pages and 64 of pool.
COLD = 3.0
HOT_PAGES = 0.25
PHASE = 0.75


def patterns(scale: Scale) -> Mapping[str, Pattern]:
    return {
        "hot set": hot_set(scale),
        "phases": phases(scale),
        "scan": scan(scale),
    }


def hot_set(scale: Scale) -> Pattern:
    """Cold pages three times the pool, then others: a quarter of the pool before compression."""
    cold, hot = cold_and_hot(scale)
    windows = (
        Window("cold pages", partial(written, cold), shown=False),
        Window("hot set, written", partial(written, hot), shown=False),
        Window("hot set", partial(worked, hot, scale.hot_seconds, 1)),
    )
    return Pattern("A hot set after cold pages", windows, hot.stop)


def phases(scale: Scale) -> Pattern:
    """Working set A, then B, then A again: each takes three quarters of the pool."""
    pages = scale.pages(PHASE)
    a, b = range(pages), range(pages, 2 * pages)
    seconds = scale.phase_seconds
    windows = (
        Window("A, written", partial(written, a), shown=False),
        Window("A", partial(worked, a, seconds, 1)),
        Window("B, written", partial(written, b), shown=False),
        Window("B", partial(worked, b, seconds, 2)),
        Window("A again", partial(worked, a, seconds, 3)),
    )
    return Pattern("Working set A, then B, then A again", windows, b.stop)


def scan(scale: Scale) -> Pattern:
    """A hot set is worked on, then cold pages are read, each once, and so on."""
    cold, hot = cold_and_hot(scale)
    windows = [
        Window("cold pages", partial(written, cold), shown=False),
        Window("hot set, written", partial(written, hot), shown=False),
        Window("before the scan", partial(worked, hot, scale.scan_seconds, 1)),
    ]
    for number in range(scale.scans):
        windows += [
            Window(f"scan {number + 1}", partial(read, cold), shown=False),
            Window(f"after scan {number + 1}", partial(worked, hot, scale.scan_seconds, number)),
        ]
    return Pattern("Scans, each page once, beside a hot set", windows, hot.stop)


def cold_and_hot(scale: Scale) -> tuple[range, range]:
    cold = range(scale.pages(COLD))
    return cold, range(cold.stop, cold.stop + int(HOT_PAGES * scale.pool) // PAGE_SIZE)


# --- requests ---


def written(pages: range) -> Iterator[str]:
    """Each once, in order, as fast as they are taken."""
    sizes = random.Random(1)
    for page in pages[::REQUEST_PAGES]:
        count = min(REQUEST_PAGES, pages.stop - page)
        made = bytes(sizes.randint(LEAST, MOST) for _ in range(count))
        yield f"0 W {page} {count} {made.hex()}\n"


def read(pages: range) -> Iterator[str]:
    """The same way, in what a guest reads at once."""
    for page in pages[::SCAN_PAGES]:
        yield f"0 R {page} {min(SCAN_PAGES, pages.stop - page)}\n"


def worked(pages: range, seconds: float, seed: int) -> Iterator[str]:
    """Single pages, read and rewritten at random."""
    drawn = random.Random(seed)
    for _ in range(int(seconds * REQUESTS_PER_SECOND)):
        page = drawn.choice(pages)
        if drawn.random() < WRITES:
            yield f"{GAP:.3f} W {page} 1 {drawn.randint(LEAST, MOST):02x}\n"
        else:
            yield f"{GAP:.3f} R {page} 1\n"
