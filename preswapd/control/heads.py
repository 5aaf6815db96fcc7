# SPDX-License-Identifier: BSD-3-Clause
"""A request's head has a bound: a hundred lines of 64 KiB would be kept of it otherwise."""

import io

# The first line alone may have 64 KiB.
LARGEST_HEAD = 68 << 10


class HeadTooLongError(Exception):
    """No request needs so much."""


class HeadReader(io.BufferedReader):
    """Reads no more lines than make a head, until the next one begins."""

    left = LARGEST_HEAD

    def begin(self) -> None:
        self.left = LARGEST_HEAD

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self.left -= len(line)
        if self.left < 0:
            raise HeadTooLongError
        return line
