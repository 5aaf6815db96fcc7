# SPDX-License-Identifier: BSD-3-Clause
"""What an image is served with; each field has its setting's name."""

from dataclasses import dataclass
from pathlib import Path

from preswapd.api.kinds import ADMIT

# An arena has 64 pools: one of swap, and one more of an image that changes at that moment.
MOST_IMAGES = 62
# A page is cached at that read of it, or at the second one.
FIRST_READ, SECOND_READ = ADMIT


@dataclass(frozen=True)
class ImageSpec:
    """An image as it is wanted; its codec is the instance's when none is named."""

    name: str
    path: Path
    compress: str | None = None
    writable: bool = False
    cache: int | None = None  # bytes
    admit: str = FIRST_READ
