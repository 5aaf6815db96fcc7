# SPDX-License-Identifier: BSD-3-Clause
"""The swap header that mkswap(8) writes, so that a guest needs only swapon."""

import struct
import uuid

from preswapd.units import PAGE_SIZE

SIGNATURE = b"SWAPSPACE2"
# Behind 1024 bytes for a boot sector: version, last page, bad pages, uuid, label.
FIELDS = struct.Struct("=1024xIII16s16s")
MOST_PAGES = (1 << 32) - 1


def swap_header(label: str, size: int) -> bytes:
    """Page 0 of a swap area of `size` bytes, in this machine's byte order, as mkswap's is."""
    last = min(size // PAGE_SIZE - 1, MOST_PAGES)
    fields = FIELDS.pack(1, last, 0, uuid.uuid4().bytes, label.encode())
    return fields.ljust(PAGE_SIZE - len(SIGNATURE), b"\0") + SIGNATURE
