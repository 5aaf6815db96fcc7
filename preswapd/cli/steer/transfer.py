# SPDX-License-Identifier: BSD-3-Clause
"""How far a save or a restore is, for whoever waits for it at a terminal."""

import sys
import time
from contextlib import suppress

import click

from preswapd.api.save_file import Follower
from preswapd.cli.steer.following import end_progress, room
from preswapd.units import format_size

# What is over sooner needs no line.
FIRST_SECONDS = 2.0
PAUSE_SECONDS = 0.5


class Transfer:
    """Counts what goes by."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.follower = Follower()
        self.bytes = 0
        self.begun = time.monotonic()
        self.next_time = self.begun + FIRST_SECONDS
        self.is_shown = sys.stderr.isatty()

    def note(self, piece: bytes) -> None:
        """NoSaveError as of Follower.feed()."""
        self.bytes += len(piece)
        self.follower.feed(piece)
        now = time.monotonic()
        if self.is_shown and now >= self.next_time:
            self.next_time = now + PAUSE_SECONDS
            with suppress(OSError):
                click.echo(f"\r\033[K{self.line(now)[: room()]}", err=True, nl=False)

    def line(self, now: float) -> str:
        of = f"{self.follower.share:.0%} of {self.device}"
        amount = f"{format_size(self.follower.page_bytes)} in {format_size(self.bytes)}"
        return f"{of}, {amount}, {self.rate(now - self.begun)}"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def rate(self, seconds: float) -> str:
        """Of the pages, not of the bytes that they are packed to."""
        return f"{format_size(int(self.follower.page_bytes / max(seconds, 0.001)))}/s"

    def end(self) -> None:
        end_progress()
