# SPDX-License-Identifier: BSD-3-Clause
"""What an instance does by itself with the pages in its memory: how an operator has set it."""

from dataclasses import dataclass

AUTO = "auto"


@dataclass
class Policy:
    """Read at each turn of the work that follows it, so that a change takes effect at once."""

    writeback_room: float = 0.05  # share of the limit that is kept free; 0: off
    writeback_idle: float | str | None = None  # seconds; AUTO; None: off
    writeback_rate: int | None = 32 << 20  # bytes a second; None: no limit
    recompress_after: float | None = 600.0  # seconds; None: off
    recompress_codec: str = "zstd"
