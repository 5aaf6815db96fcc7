# SPDX-License-Identifier: BSD-3-Clause
"""A save: the known pages of a device that is shut to clients, as the blocks of a file."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict

from preswapd.api.messages import SavedDevice, SaveReport
from preswapd.api.save_file import COUNTS, END, FAILED, LONGEST_TEXT, PAGES, PREFIX, START, ZONE
from preswapd.preswap.device._blocks import HEAD_BYTES, Packer, bound
from preswapd.preswap.device._device import SPACE_BYTES, Device
from preswapd.preswap.saves.space import content, space
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
            yield from self.pages(packer, PAGES)
            outside = self.report
            yield from self.pages(packer, ZONE)
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

    def pages(self, packer: Packer, kind: int) -> Iterator[memoryview]:
        room = bytearray(HEAD_BYTES + bound(SPACE_BYTES))
        page = 0
        with space() as view, memoryview(room) as packed:
            while page < self.device.pages:
                page, first, pages, held, zeros, lost = self.device.read_contents(
                    page, kind == ZONE, view
                )
                self.add(held, zeros, lost)
                if held or zeros:
                    with content(view, pages, pages + held * PAGE_SIZE) as raw:
                        length = packer.packed(kind, first, raw, packed)
                    yield packed[:length]

    def add(self, held: int, zeros: int, lost: int) -> None:
        now = self.report
        self.report = SaveReport(now.pages + held, now.zeros + zeros, now.lost + lost)
