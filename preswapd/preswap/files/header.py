# SPDX-License-Identifier: BSD-3-Clause
"""The swap header that mkswap(8) writes, so that a guest needs only swapon.

The pages of the scan zone are bad pages in it: a guest then never swaps there.
"""

import os
import struct

from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE

SIGNATURE = b"SWAPSPACE2"
# Behind 1024 bytes for a boot sector: version, last page, how many bad pages, uuid, label.  The
# bad pages' numbers follow, up to the signature.
FIELDS = struct.Struct("=1024xIII16s16s468x")
MOST_PAGES = (1 << 32) - 1
MOST_BAD_PAGES = (PAGE_SIZE - len(SIGNATURE) - FIELDS.size) // 4


def random_uuid() -> bytes:
    """As uuid.uuid4() has it, which asks what machine this is and loads what parses the answer."""
    found = bytearray(os.urandom(16))
    found[6] = found[6] & 0x0F | 0x40
    found[8] = found[8] & 0x3F | 0x80
    return bytes(found)


def swap_header(label: str, size: int) -> bytes:
    """Page 0 of a swap area of `size` bytes, in this machine's byte order, as mkswap's is."""
    pages = size // PAGE_SIZE
    last = min(pages - 1, MOST_PAGES)
    # Page 0 is no place to swap to anyway, and a guest refuses a header that lists it.
    bad = [page for part in zone(pages) for page in part if 0 < page <= last]
    fields = FIELDS.pack(1, last, len(bad), random_uuid(), label.encode())
    listed = struct.pack(f"={len(bad)}I", *bad)
    return (fields + listed).ljust(PAGE_SIZE - len(SIGNATURE), b"\0") + SIGNATURE
