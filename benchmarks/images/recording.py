# SPDX-License-Identifier: BSD-3-Clause
"""What a guest read of its root disk while it booted, and an image that compresses as that one did.

NAME.trace.xz is text, a record a line; lines that begin with # are comments.
tests/scan/record_boot.py writes it.

    S BYTES                          the size of the image
    P PAGE SIZES                     pages from PAGE on: two hex digits each, the size after LZ4 in
                                     units of 16 bytes, rounded up (ff: 4080 or more); 00: zeros, or
                                     one repeated value
    R WAITED OTHERS OFFSET LENGTH    a read; the guest sent it WAITED microseconds after the request
                                     before, or after the last answer if that came later, and OTHERS
                                     were not answered yet

Pages that were not read, nor lie around one that was, are not known: the image has a hole there.
"""

import lzma
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from preswapd.units import PAGE_SIZE

FILE = Path(__file__).with_name("debian-12.trace.xz")
UNIT, LARGEST = 16, 0xFF
# LZ4's own bytes, by trial, in a page of random words with one repeated word behind them.
OVERHEAD = 56
WORD = 8


@dataclass(frozen=True)
class Read:
    waited: int  # microseconds
    others: int
    offset: int
    length: int

    @property
    def pages(self) -> range:
        return range(self.offset // PAGE_SIZE, -(-(self.offset + self.length) // PAGE_SIZE))


@dataclass(frozen=True)
class Recording:
    """`sizes`: of each page that is known, in UNITs."""

    size: int
    sizes: dict[int, int]
    reads: list[Read]

    @property
    def pages(self) -> set[int]:
        """That are read at least once."""
        return {page for read in self.reads for page in read.pages}


def recorded(path: Path = FILE) -> Recording:
    with lzma.open(path, "rt") as file:
        return parsed(file)


def parsed(lines: Iterable[str]) -> Recording:
    size, sizes, reads = 0, dict[int, int](), list[Read]()
    for line in lines:
        kind, *words = line.split()
        if kind == "S":
            size = int(words[0])
        elif kind == "P":
            sizes.update(enumerate(bytes.fromhex(words[1]), int(words[0])))
        elif kind == "R":
            reads.append(Read(*map(int, words)))
    return Recording(size, sizes, reads)


def make_image(recording: Recording, path: Path) -> None:
    """A file that holds in each known page what `page_of` makes."""
    with path.open("wb") as file:
        file.truncate(recording.size)
        for page, size in sorted(recording.sizes.items()):
            if page < recording.size // PAGE_SIZE:
                file.seek(page * PAGE_SIZE)
                file.write(page_of(page, size))


def page_of(page: int, size: int) -> bytes:
    """It begins with its number, so that one in another's place is noticed."""
    name = page.to_bytes(WORD, "little")
    if size == LARGEST:
        return name + random.Random(page).randbytes(PAGE_SIZE - WORD)
    # Two words at least, else it would be a page of one repeated value.
    made = name + random.Random(page).randbytes(max(size * UNIT - OVERHEAD, 0) // WORD * WORD)
    return made + name * ((PAGE_SIZE - len(made)) // WORD)
