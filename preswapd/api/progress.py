# SPDX-License-Identifier: BSD-3-Clause
"""How far a shrink or a sync is, in one line for a person."""

from preswapd.api.messages import ShrinkProgress
from preswapd.units import PAGE_SIZE, format_pages, format_size


def progress_text(step: ShrinkProgress, seconds: float) -> str:
    """With the rate since it began, `seconds` ago, and how long the rest will take at it."""
    text = f"{format_pages(step.moved)} moved, {step.left} left, target {step.target}"
    if step.moved and seconds > 0:
        rate = step.moved / seconds
        rest = max(0, step.left - step.target) / rate
        text += f", {format_size(int(rate) * PAGE_SIZE)}/s, {rest:.0f} s to go"
    return text
