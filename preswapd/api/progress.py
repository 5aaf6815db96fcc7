# SPDX-License-Identifier: BSD-3-Clause
"""How far a shrink or a sync is, in one line for a person."""

from preswapd.api.messages import ShrinkProgress
from preswapd.units import PAGE_SIZE, format_pages, format_size


class Pace:
    """With the rate since the first line, and how long the rest will take at it.

    What had moved before the first line took a time that nobody here has measured.
    """

    def __init__(self) -> None:
        self.first: ShrinkProgress | None = None
        self.begun = 0.0  # time.monotonic()

    def line(self, step: ShrinkProgress, now: float) -> str:
        text = f"{format_pages(step.moved)} moved, {step.left} left, target {step.target}"
        return text + self.rate(step, now)

    def rate(self, step: ShrinkProgress, now: float) -> str:
        """Nothing while there is none: at the first line, and while nothing moves."""
        if self.first is None:
            self.first, self.begun = step, now
        moved, seconds = step.moved - self.first.moved, now - self.begun
        if moved <= 0 or seconds <= 0:
            return ""
        rate = moved / seconds
        rest = max(0, step.left - step.target) / rate
        return f", {format_size(int(rate * PAGE_SIZE))}/s, {rest:.0f} s to go"
