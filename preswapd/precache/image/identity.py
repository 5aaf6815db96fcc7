# SPDX-License-Identifier: BSD-3-Clause
"""What an image is: whoever changes a byte of its file changes this first."""

import struct
from typing import NamedTuple

from preswapd.block.digest import blake2b

# Two changes within one tick of the file system's clock look alike; the coarsest ticks last 2 s.
SETTLED_SECONDS = 2.0


class Identity(NamedTuple):
    """As fstat(2) says; of a block device only which one it is, as its times say nothing."""

    device: int
    inode: int
    size: int
    mtime_s: int
    mtime_ns: int
    ctime_s: int
    ctime_ns: int

    def uuid(self, cache: int | None = None) -> bytes:
        """Of the pool of its pages: 16 bytes, never all zeros but by a chance of 2^-128.

        A pool has one limit, so images of one file that have others do not share it."""
        text = b"preswapd image" + struct.pack("<3Q4q", *self)
        if cache is not None:
            text += struct.pack("<Q", cache)
        return blake2b(text, digest_size=16).digest()

    def is_older(self, now: float) -> bool:
        """Whether it was changed last so long before `now`, seconds since 1970, that a later change
        looks different."""
        return self.ctime_s + self.ctime_ns / 1e9 <= now - SETTLED_SECONDS
