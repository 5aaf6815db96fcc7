# SPDX-License-Identifier: BSD-3-Clause
"""What a disk must return: the reference that the devices are compared with."""

import random

from preswapd.units import PAGE_SIZE as PAGE


class DiskModel:
    """Reads give the bytes that were last acknowledged, and of trimmed ones zeros.

    Of the pages in `unknown` they give an error, until they are written or trimmed as a whole; a
    request that needs one of them changes nothing there.
    """

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(size)
        self.unknown: set[int] = set()

    def forget(self, first: int, pages: int) -> None:
        self.unknown |= set(range(first, first + pages))

    def knows(self, offset: int, count: int) -> bool:
        return self.unknown.isdisjoint(range(offset // PAGE, -(-(offset + count) // PAGE)))

    def change(self, offset: int, data: bytes) -> bool:
        """False where a part of an unknown page was to be changed; whole pages before it are."""
        at, end = offset, offset + len(data)
        while at < end:
            page, stop = at // PAGE, min(end, (at // PAGE + 1) * PAGE)
            if stop - at < PAGE and page in self.unknown:
                return False
            self.unknown.discard(page)
            self.bytes[at:stop] = data[at - offset : stop - offset]
            at = stop
        return True

    def write(self, offset: int, data: bytes) -> bool:
        return self.change(offset, data)

    def zero(self, offset: int, count: int) -> bool:
        return self.change(offset, bytes(count))

    def trim(self, offset: int, count: int) -> None:
        """Only whole pages inside the range: a disk may leave the ragged ends alone."""
        first, end = -(-offset // PAGE), (offset + count) // PAGE
        if first < end:
            self.zero(first * PAGE, (end - first) * PAGE)

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self.bytes[offset : offset + count])


def page_of(tag: int) -> bytes:
    """A page that says which it is: some are same-filled, some compress, some do not."""
    word = (tag * 0x9E3779B97F4A7C15 + 1 & (1 << 64) - 1).to_bytes(8, "little")
    match tag % 3:
        case 0:
            return word * (PAGE // 8)
        case 1:
            return (word + bytes(56)) * (PAGE // 64)
    return random.Random(tag).randbytes(PAGE)


def pages_of(tag: int, count: int) -> bytes:
    """`count` bytes that differ from page to page."""
    return b"".join(page_of(tag + 7 * i) for i in range(-(-count // PAGE)))[:count]
