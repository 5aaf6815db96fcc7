# SPDX-License-Identifier: BSD-3-Clause
"""A restore: the blocks of a save become the pages of a device of which nothing was known.

All of it or nothing: the row "restore" of docs/concurrency.md.  While it is under way the device's
entry says ADOPTING, by which a start drops its pages; one store makes them known.
"""

from collections.abc import Callable
from typing import NamedTuple

from preswapd.api.messages import SavedDevice, SaveReport
from preswapd.api.save_file import (
    END,
    FAILED,
    HEAD,
    PACKED,
    PAGES,
    PREFIX,
    START,
    ZONE,
    Head,
    NoSaveError,
    check_prefix,
    failure_in,
    head_of,
    saved_counts,
    saved_device,
)
from preswapd.preswap.creation import Served
from preswapd.preswap.device._blocks import Unpacker
from preswapd.preswap.device._device import EXTENT_PAGES, Device
from preswapd.preswap.files.header import swap_header
from preswapd.preswap.files.sidecar import RESTORING, RESTORING_ZONE
from preswapd.preswap.files.zone import zone
from preswapd.preswap.saves.space import content, space
from preswapd.units import PAGE_SIZE, exact_size

# So many bytes of what comes, or fewer at its end only.
Read = Callable[[int], bytes]
# Of a block: its extent, of which what is compressed as in memory comes first.
Place = tuple[int, bool]

CUT = "it ends too early"
DAMAGED = "it is damaged"
ANOTHER_ZONE = (
    "it was saved by another version of preswapd, which has another scan zone: restore it where"
    " that version runs"
)


def known_pages(device: Device) -> int:
    """Outside of the zone; lost ones are known to be so."""
    unknown = device.stats()["unknown_pages"]
    return device.pages - sum(map(len, zone(device.pages))) - unknown


class Block(NamedTuple):
    head: Head
    payload: bytes


class Blocks:
    """Those of a save that is read, each checked before it is handed out."""

    def __init__(self, read: Read) -> None:
        self.read = read
        prefix = self.read(len(PREFIX))
        check_prefix(prefix)
        self.unpacker = Unpacker(prefix)

    def next(self) -> Block:
        """NoSaveError where none is left, or it is not what was saved."""
        text = self.exactly(HEAD.size)
        head = head_of(text)
        payload = self.exactly(head.length)
        if not self.unpacker.follows(text, payload):
            raise NoSaveError(DAMAGED)
        if head.kind == FAILED:
            raise failure_in(payload)
        return Block(head, payload)

    def exactly(self, length: int) -> bytes:
        found = self.read(length)
        if len(found) < length:
            raise NoSaveError(CUT)
        return found

    def check_end(self) -> None:
        if self.read(1):
            raise NoSaveError("there is more behind its end")

    def unpack(self, block: Block, into: memoryview) -> None:
        try:
            self.unpacker.unpack(block.payload, into)
        except ValueError:
            raise NoSaveError(DAMAGED) from None


class Restoring:
    """Into a device that is shut to clients, and that no operator changes.  `saved` is what the
    save says of itself, once that has come."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.device = served.device
        self.record = served.record
        self.saved: SavedDevice | None = None
        self.report = SaveReport(0, 0)
        self.of_zone: list[Block] = []
        self.zone_is_changed = False

    def begin(self) -> None:
        """From here on a start knows nothing of the device but its zone.  OSError: nothing was
        changed."""
        self.device.ensure_marked()
        self.record.note_restore(RESTORING)
        self.served.entry.set_state("adopting")

    def take(self, read: Read) -> None:
        """All that comes, to its end.  NoSaveError, OSError: to be undone."""
        blocks = Blocks(read)
        self.check_fits(blocks.next())
        block = blocks.next()
        with space() as view:
            last: Place = (-1, False)
            while block.head.kind in (PACKED, PAGES):
                last = self.place_behind(last, block)
                held, zeros = self.write(blocks, block, view)
                self.report = SaveReport(self.report.pages + held, self.report.zeros + zeros)
                block = blocks.next()
            last = (-1, False)
            while block.head.kind == ZONE:
                last = self.place_behind(last, block)
                self.check_touches_zone(block)
                self.of_zone.append(block)
                block = blocks.next()
            if block.head.kind != END:
                raise NoSaveError(DAMAGED)
            blocks.check_end()
            self.commit(blocks, view, self.in_zone(block))

    def check_fits(self, block: Block) -> None:
        if block.head.kind != START:
            raise NoSaveError(DAMAGED)
        self.saved = saved_device(block.payload)
        if self.saved.pages != self.device.pages:
            theirs, ours = (
                exact_size(pages * PAGE_SIZE) for pages in (self.saved.pages, self.device.pages)
            )
            raise NoSaveError(
                f"it is of a device of {theirs}, and {self.device.name} has {ours}: `preswapctl"
                f" create NAME {theirs}` makes one that it goes into"
            )

    def in_zone(self, end: Block) -> int:
        """So many pages of the zone are in it; all others have been written."""
        report, in_zone = saved_counts(end.payload)
        if (report.pages, report.zeros) != (self.report.pages, self.report.zeros):
            raise NoSaveError(DAMAGED)
        # No page was in it twice.
        if known_pages(self.device) != report.pages + report.zeros:
            raise NoSaveError(DAMAGED)
        if in_zone != sum(map(len, zone(self.device.pages))):
            raise NoSaveError(ANOTHER_ZONE)
        self.report = report
        return in_zone

    def place_behind(self, last: Place, block: Block) -> Place:
        place = (block.head.first, block.head.kind != PACKED)
        if place <= last or block.head.first >= self.device.pages:
            raise NoSaveError(DAMAGED)
        return place

    def check_touches_zone(self, block: Block) -> None:
        """These are kept until the end: there are a few of them, whatever the file says."""
        extent = range(block.head.first, block.head.first + EXTENT_PAGES)
        if not any(
            part.start < extent.stop and extent.start < part.stop
            for part in zone(self.device.pages)
        ):
            raise NoSaveError(ANOTHER_ZONE)

    def write(self, blocks: Blocks, block: Block, view: memoryview) -> tuple[int, int]:
        first, length, is_zone = block.head.first, block.head.raw, block.head.kind == ZONE
        try:
            pages = self.device.extent_pages(first)
            if block.head.kind == PACKED:
                held = self.device.write_packed(first, view, block.payload)
                if length != pages + held * PAGE_SIZE:
                    raise NoSaveError(DAMAGED)
                return held, 0
            if not pages <= length <= pages * (1 + PAGE_SIZE):
                raise NoSaveError(DAMAGED)
            with content(view, pages, length) as raw:
                blocks.unpack(block, raw)
            return self.device.write_contents(first, is_zone, view, length)
        except ValueError:
            raise NoSaveError(ANOTHER_ZONE) from None

    # --- its end ---

    def commit(self, blocks: Blocks, view: memoryview, in_zone: int) -> None:
        """The zone is a plain file, and comes last: a save that is damaged has not changed it."""
        self.record.note_restore(RESTORING_ZONE)
        self.zone_is_changed = True
        written = sum(self.write(blocks, block, view)[0] for block in self.of_zone)
        if written != in_zone:
            raise NoSaveError(DAMAGED)
        self.device.sync()
        self.served.entry.set_state("served")
        self.record.note_restore("")

    def undo(self) -> None:
        """Of all pages nothing is known, but of the zone what was before, or a fresh one."""
        self.served.entry.set_state("adopting")
        self.device.forget()
        if self.zone_is_changed:
            self.device.clear_zone()
            self.device.write_page_zero(swap_header(self.device.name, self.device.size))
            self.device.sync()
        self.served.entry.set_state("served")
        self.record.note_restore("")
