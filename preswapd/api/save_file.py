# SPDX-License-Identifier: BSD-3-Clause
"""The file that a save of a device is: docs/save-format.md.

The server makes it and takes it; on its way an operator's end follows how far it is.
"""

import json
import struct
from typing import NamedTuple

from preswapd.api.kinds import LARGEST_DEVICE
from preswapd.api.messages import SavedDevice, SaveReport
from preswapd.units import PAGE_SIZE

NAME = b"preswapd-save "
PREFIX = NAME + b"2\n"
# Those that are read: the first one had no pages as they are compressed in memory.
PREFIXES = (NAME + b"1\n", PREFIX)

# Kind, length of the payload, first page, length of the payload once unpacked, checksum.
HEAD = struct.Struct("<IIQQQ")
START, PACKED, PAGES, ZONE, END, FAILED = (
    int.from_bytes(word, "little")
    for word in (b"STRT", b"PACK", b"PAGE", b"ZONE", b"END.", b"FAIL")
)
# Pages outside of the zone that hold something, are zeros, were lost; and those of the zone.
COUNTS = struct.Struct("<QQQQ")
# Of a block that is not packed; of one that is, the most that 256 pages may be packed to.
LONGEST_TEXT = 4096
LONGEST_PACKED = (1 << 20) + (1 << 16)
# Seconds since 1970: the year 10000, which no clock shows.
END_OF_TIME = 253_402_300_800


class NoSaveError(Exception):
    """It cannot be taken for what a server has saved: why not."""


class Head(NamedTuple):
    kind: int
    length: int
    first: int
    raw: int
    sum: int

    @property
    def is_packed(self) -> bool:
        return self.kind in (PACKED, PAGES, ZONE)


def check_prefix(prefix: bytes) -> None:
    if prefix in PREFIXES:
        return
    if prefix.startswith(NAME):
        raise NoSaveError(
            "its format is that of another version of preswapd: upgrade preswapd here, or restore"
            " it where that version runs"
        )
    raise NoSaveError("it is no save of a device" if prefix else "it is empty")


def head_of(text: bytes) -> Head:
    """NoSaveError for a length that none has."""
    head = Head(*HEAD.unpack(text))
    if not 0 < head.length <= (LONGEST_PACKED if head.is_packed else LONGEST_TEXT):
        raise NoSaveError("it is damaged")
    return head


def saved_device(payload: bytes) -> SavedDevice:
    """What the first block says.  NoSaveError."""
    try:
        found = SavedDevice.from_json(json.loads(payload))
        if not is_sound(found):
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise NoSaveError("it does not say what was saved") from None
    return found


def is_sound(saved: SavedDevice) -> bool:
    """Of the kinds that a save has, and fit for a terminal and a log."""
    words = (saved.device, saved.instance, saved.preswapd)
    return (
        all(type(word) is str and word.isprintable() for word in words)
        and type(saved.pages) is int
        and 0 < saved.pages <= LARGEST_DEVICE // PAGE_SIZE
        and type(saved.time) in (int, float)
        and 0 <= saved.time < END_OF_TIME
    )


def failure_in(payload: bytes) -> NoSaveError:
    """Why the server that saved it could not go on, as its last block says."""
    text = payload.decode(errors="replace")
    return NoSaveError("".join(one if one.isprintable() else "?" for one in text))


def saved_counts(payload: bytes) -> tuple[SaveReport, int]:
    """What the last block says, and how many pages of the zone there are.  NoSaveError."""
    if len(payload) != COUNTS.size:
        raise NoSaveError("it is damaged")
    pages, zeros, lost, in_zone = COUNTS.unpack(payload)
    return SaveReport(pages, zeros, lost), in_zone


class Follower:
    """Is shown a save piece by piece, and knows how far it is.  Nothing is checked that the server
    checks."""

    def __init__(self) -> None:
        self.rest = bytearray()
        self.skip = 0
        self.has_prefix = False
        self.saved: SavedDevice | None = None
        self.next_page = 0
        self.page_bytes = 0
        self.report = SaveReport(0, 0)
        self.is_complete = False

    def feed(self, piece: bytes) -> None:
        """NoSaveError: it is no save, or the server says in it why it could not go on."""
        self.rest += piece
        while block := self.block():
            self.note(*block)

    def block(self) -> tuple[Head, bytes] | None:
        """The next one whose head is there, and with it the payload where that is a text."""
        if not self.has_prefix:
            if len(self.rest) < len(PREFIX):
                return None
            check_prefix(bytes(self.rest[: len(PREFIX)]))
            del self.rest[: len(PREFIX)]
            self.has_prefix = True
        gone = min(self.skip, len(self.rest))
        del self.rest[:gone]
        self.skip -= gone
        if self.skip or len(self.rest) < HEAD.size:
            return None
        head = head_of(bytes(self.rest[: HEAD.size]))
        if head.is_packed:
            self.skip = head.length
            del self.rest[: HEAD.size]
            return head, b""
        if len(self.rest) < HEAD.size + head.length:
            return None
        payload = bytes(self.rest[HEAD.size : HEAD.size + head.length])
        del self.rest[: HEAD.size + head.length]
        return head, payload

    def note(self, head: Head, payload: bytes) -> None:
        if head.kind == START:
            self.saved = saved_device(payload)
        elif head.kind in (PACKED, PAGES):
            self.next_page = head.first
            # Behind a byte for each page of the extent.
            self.page_bytes += head.raw // PAGE_SIZE * PAGE_SIZE
        elif head.kind == FAILED:
            raise failure_in(payload)
        elif head.kind == END:
            self.report, _ = saved_counts(payload)
            self.is_complete = True

    @property
    def share(self) -> float:
        """How much of the device has been."""
        pages = self.saved.pages if self.saved else 0
        return min(1.0, self.next_page / pages) if pages else 0.0
