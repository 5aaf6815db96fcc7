# SPDX-License-Identifier: BSD-3-Clause
"""A save: the known pages of a device that is shut to clients, as the blocks of a file."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict

from preswapd.api.messages import SavedDevice, SaveReport
from preswapd.api.save_file import (
    COUNTS,
    END,
    FAILED,
    LONGEST_TEXT,
    PACKED,
    PAGES,
    PREFIX,
    START,
    ZONE,
)
from preswapd.preswap.device._blocks import HEAD_BYTES, Packer, bound
from preswapd.preswap.device._device import PACKED_BYTES, SPACE_BYTES, Device
from preswapd.preswap.saves.space import content, room, space
from preswapd.units import PAGE_SIZE
from preswapd.version import VERSION


class Saving:
    """`report` grows as the blocks are taken; `failure`: why the last of them says that there is no
    save."""

    def __init__(self, device: Device, instance: str) -> None:
        self.device = device
        self.instance = instance
        self.report = SaveReport(0, 0)
        self.failure: str | None = None

    def blocks(self) -> Iterator[bytes | memoryview]:
        """A view is good until the next one is taken."""
        packer = Packer(PREFIX)
        yield PREFIX
        yield packer.plain(START, self.about())
        try:
            yield from self.pages(packer)
            outside = self.report
            yield from self.zone(packer)
        except OSError as error:
            self.failure = f"{self.device.name} cannot be read: {error.strerror}"
            yield packer.plain(FAILED, self.failure.encode()[:LONGEST_TEXT])
            return
        in_zone, self.report = self.report.pages - outside.pages, outside
        counts = (outside.pages, outside.zeros, outside.lost, in_zone)
        yield packer.plain(END, COUNTS.pack(*counts))

    def about(self) -> bytes:
        pages, name = self.device.pages, self.device.name
        return json.dumps(
            asdict(SavedDevice(name, self.instance, pages, time.time(), VERSION))
        ).encode()

    def pages(self, packer: Packer) -> Iterator[memoryview]:
        """Of each extent what is compressed in memory, as it is there, and then the others."""
        page = 0
        with space() as view, room(PACKED_BYTES) as stored, room(bound(SPACE_BYTES)) as packed:
            while page < self.device.pages:
                page, first, pages, held, zeros, lost, as_is, length = self.device.read_contents(
                    page, False, view, stored[HEAD_BYTES:]
                )
                self.add(held + as_is, zeros, lost)
                if as_is:
                    raw = pages + as_is * PAGE_SIZE
                    yield stored[: packer.stored(PACKED, first, raw, stored, length)]
                if held or zeros:
                    with content(view, pages, pages + held * PAGE_SIZE) as bare:
                        length = packer.packed(PAGES, first, bare, packed)
                    yield packed[:length]

    def zone(self, packer: Packer) -> Iterator[memoryview]:
        page = 0
        with space() as view, room(bound(SPACE_BYTES)) as packed:
            while page < self.device.pages:
                page, first, pages, held, *_ = self.device.read_contents(page, True, view)
                self.add(held, 0, 0)
                if held:
                    with content(view, pages, pages + held * PAGE_SIZE) as bare:
                        length = packer.packed(ZONE, first, bare, packed)
                    yield packed[:length]

    def add(self, held: int, zeros: int, lost: int) -> None:
        now = self.report
        self.report = SaveReport(now.pages + held, now.zeros + zeros, now.lost + lost)
