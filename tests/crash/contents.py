# SPDX-License-Identifier: BSD-3-Clause
"""Contents of pages that say where they come from: device, page and a sequence number.

A page that turns up in the wrong place, or too late, tells whose it is.
"""

import random
import re
import struct
from enum import Enum

from preswapd.units import PAGE_SIZE as PAGE

SECTOR = 512
ZEROS = bytes(PAGE)

TAG = re.compile(rb"<([a-z0-9]+) +(\d+) +(\d+)>")
TAG_BYTES = 32
# Eight bytes that a same-filled page repeats: mark, device, page, sequence number.
WORD = struct.Struct("<BBHI")
MARK = 0xA5


class Kind(Enum):
    SAME_FILLED = "same-filled"
    TEXT = "text"  # compresses well
    NOISE = "noise"  # does not compress


def page_content(kind: Kind, device: str, page: int, seq: int, random: random.Random) -> bytes:
    if kind is Kind.SAME_FILLED:
        return WORD.pack(MARK, device_number(device), page, seq) * (PAGE // WORD.size)
    tag = f"<{device} {page} {seq}>".encode().rjust(TAG_BYTES)
    if kind is Kind.TEXT:
        return tag * (PAGE // TAG_BYTES)
    noise = random.randbytes(PAGE)
    return b"".join(tag + noise[at + TAG_BYTES : at + SECTOR] for at in range(0, PAGE, SECTOR))


def device_number(device: str) -> int:
    return int(device.removeprefix("g"))


def origin(piece: bytes) -> str:
    """Where a piece of a page comes from, as far as it says so."""
    if not any(piece):
        return "zeros"
    if tag := TAG.search(piece):
        device, page, seq = tag.groups()
        return f"{device.decode()}, page {int(page)}, write {int(seq)}"
    for at in range(min(WORD.size, len(piece) - WORD.size)):
        mark, device, page, seq = WORD.unpack_from(piece, at)
        if mark == MARK and piece[at : at + WORD.size] * 2 == piece[at : at + 2 * WORD.size]:
            return f"g{device}, page {page}, write {seq} (same-filled)"
    return f"no content of ours ({piece[:16].hex()})"


def difference(found: bytes, content: bytes, start: int = 0) -> str:
    """Which bytes of a page, found from `start` on, are wrong, and whose they are."""
    page = content[:start] + found + content[start + len(found) :]
    wrong = [at for at in range(PAGE) if page[at] != content[at]]
    first, last = wrong[0], wrong[-1]
    around = slice(first // SECTOR * SECTOR, last // SECTOR * SECTOR + SECTOR)
    return (
        f"{len(wrong)} bytes wrong, from {first} to {last}: found {origin(page[around])},"
        f" expected {origin(content[around])}"
    )
