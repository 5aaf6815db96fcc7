# SPDX-License-Identifier: BSD-3-Clause
"""What server and courier say to each other: a header of 16 bytes, little-endian, and a payload."""

import struct

# Bytes of the payload, what it is, status, which of a get's names, zero, the request's id.
HEADER = struct.Struct("<IBBBBQ")
MOST_PAYLOAD = 1 << 20

GET, SET, DELETE = ord("g"), ord("s"), ord("d")
VALUE, STATUS = ord("v"), ord("j")

FOUND, MISS, AWAY, ERROR = 0, 1, 2, 3
STORED, REFUSED = 0, 3

NAME_BYTES = 16
MOST_NAMES = 32
# A page, sealed, is 4,127 bytes at most: REMOTE_VALUE_MOST of remote.h.
MOST_VALUE = 4200


class FrameError(Exception):
    """The other end said what cannot be: it is given up."""


def names_in(payload: memoryview, most: int) -> int:
    """How many names a payload holds."""
    count, rest = divmod(len(payload), NAME_BYTES)
    if rest or not 1 <= count <= most:
        raise FrameError(f"{len(payload)} bytes are not 1 to {most} names")
    return count
