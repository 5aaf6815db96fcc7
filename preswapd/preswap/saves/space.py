# SPDX-License-Identifier: BSD-3-Clause
"""Memory for the pages of one extent, as the device reads and writes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap as anonymous_memory

from preswapd.preswap.device._blocks import HEAD_BYTES
from preswapd.preswap.device._device import SPACE_BYTES
from preswapd.units import PAGE_SIZE


@contextmanager
def space() -> Iterator[memoryview]:
    """Aligned as a page is; it goes back to the system at once."""
    with anonymous_memory(-1, SPACE_BYTES) as memory, memoryview(memory) as view:
        yield view


@contextmanager
def room(payload: int) -> Iterator[memoryview]:
    """For a block: its head, and so many bytes at most."""
    with memoryview(bytearray(HEAD_BYTES + payload)) as view:
        yield view


def content(view: memoryview, pages: int, length: int) -> memoryview:
    """Of an extent of so many pages: a byte for each of them, then what they hold."""
    start = PAGE_SIZE - pages
    return view[start : start + length]
