# SPDX-License-Identifier: BSD-3-Clause
"""What an instance does by itself with the pages in its memory: how an operator has set it."""

from dataclasses import dataclass

from preswapd.api.kinds import AUTO, OFF
from preswapd.preswap.settings import Settings

__all__ = ["AUTO", "Policy"]


@dataclass
class Policy:
    """Read at each turn of the work that follows it, so that a change takes effect at once."""

    writeback_room: float = 0.05  # share of the limit that is kept free; 0: off
    writeback_idle: float | str | None = None  # seconds; AUTO; None: off
    writeback_rate: int | None = 32 << 20  # bytes a second; None: no limit
    recompress_after: float | None = 600.0  # seconds; None: off
    recompress_codec: str = "zstd"  # of no meaning while `recompress_after` is off

    def follow(self, settings: Settings) -> None:
        """From now on what these say."""
        idle, rate = settings.writeback_idle, settings.writeback_rate
        after, codec = settings.recompress_after, settings.recompress_codec
        self.writeback_room = settings.writeback_room
        self.writeback_idle = None if idle == OFF else idle
        self.writeback_rate = rate if isinstance(rate, int) else None
        # Each of them may say that it is off; whoever follows need look at one.
        self.recompress_after = after if isinstance(after, int) and codec != OFF else None
        self.recompress_codec = Policy.recompress_codec if codec == OFF else codec
