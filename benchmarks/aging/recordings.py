# SPDX-License-Identifier: BSD-3-Clause
"""Recorded swap traffic of guests (traces/README.md), and what a simulation made of it."""

import lzma
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name("traces")
SUFFIX = ".trace.xz"
# As a guest's requests are that swaps out.
REQUEST_PAGES = 32
# As the simulation counts: a header beside each page, and little more for one repeated value.
UNIT, HEADER, SAME_FILLED = 16, 64, 80


@dataclass(frozen=True)
class Kept:
    """Reads that came from memory, in per cent, and pages written to disk for 100 written."""

    memory: float
    disk: float


@dataclass(frozen=True)
class Simulated:
    """Of a pool of half of what all known pages take, and a disk without limits.

    `first`: puts are rejected when the pool is full, and nothing leaves it.  `touch`: the heaviest
    pages go, age times bytes, and what is read from disk comes back if it was to be expected soon.
    """

    first: Kept
    touch: Kept


SIMULATED: Mapping[str, Simulated] = {
    "hotcold": Simulated(Kept(82, 25), Kept(77, 28)),
    "sleeper": Simulated(Kept(15, 71), Kept(86, 25)),
    "sleeper-small": Simulated(Kept(33, 65), Kept(73, 35)),
    "turns": Simulated(Kept(68, 34), Kept(66, 41)),
    "jobs": Simulated(Kept(76, 38), Kept(77, 39)),
    "tmpfs-scan": Simulated(Kept(62, 40), Kept(54, 45)),
    "skewed": Simulated(Kept(51, 50), Kept(65, 40)),
}


def lines(name: str) -> Iterator[str]:
    with lzma.open(FOLDER / f"{name}{SUFFIX}", "rt") as file:
        yield from file


@dataclass(frozen=True)
class Request:
    op: str
    page: int
    count: int
    sizes: bytes  # of a write, in units of 16 bytes


def requests(text: Iterable[str]) -> Iterator[Request]:
    for line in text:
        if not line.startswith("#"):
            _, op, page, count, *sizes = line.split()
            yield Request(op, int(page), int(count), bytes.fromhex("".join(sizes)))


@dataclass(frozen=True)
class Most:
    """The pages that were known when known pages were largest, each with its size; and the disk."""

    sizes: Mapping[int, int]
    disk_pages: int

    def written(self) -> Iterator[str]:
        """Requests that write them all, as fast as they are taken."""
        for run in runs(sorted(self.sizes)):
            yield f"0 W {run[0]} {len(run)} {bytes(self.sizes[page] for page in run).hex()}\n"


def most(name: str) -> Most:
    best = known_after(lines(name), None)
    return Most(known_after(lines(name), best.requests).sizes, best.disk_pages)


@dataclass(frozen=True)
class Known:
    sizes: dict[int, int]
    requests: int  # after how many of them known pages were largest
    disk_pages: int


def known_after(text: Iterable[str], count: int | None) -> Known:
    """What is known after so many requests, or in the end."""
    sizes: dict[int, int] = {}
    taken = largest = at = end = number = 0
    for number, request in enumerate(requests(text), 1):
        last = request.page + request.count
        end = max(end, last)
        if request.op == "W":
            taken -= sum(bytes_of(sizes.get(page)) for page in range(request.page, last))
            taken += sum(map(bytes_of, request.sizes))
            sizes.update(zip(range(request.page, last), request.sizes, strict=True))
        elif request.op == "T":
            taken -= sum(bytes_of(sizes.pop(page, None)) for page in range(request.page, last))
        if taken > largest:
            largest, at = taken, number
        if number == count:
            break
    return Known(sizes, at, end)


def bytes_of(size: int | None) -> int:
    """What a page of this size takes in a pool; nothing where there is none."""
    if size is None:
        return 0
    return UNIT * size + HEADER if size else SAME_FILLED


def runs(pages: list[int]) -> Iterator[list[int]]:
    """Pages that lie side by side, so many of them at most as a request has."""
    run: list[int] = []
    for page in pages:
        if run and (page != run[-1] + 1 or len(run) == REQUEST_PAGES):
            yield run
            run = []
        run.append(page)
    if run:
        yield run
