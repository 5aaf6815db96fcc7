# SPDX-License-Identifier: BSD-3-Clause
"""Extents that are moved to disk while the shrink chooses the next ones.

The standard library's pool of threads loads the logging of programs that have one: half a MiB that
each instance would have for itself.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from preswapd.preswap.device._device import Device

# One extent is decompressed while the other is written: 1.05 times the rate of dd instead of 0.7.
MOVES_AT_ONCE = 2

# Pages moved, pages lost, an errno.
Moved = tuple[int, int, int]
Work = Callable[[Device, int, int], Moved]


class Move:
    """An extent on its way to disk, with at most `most` of its pages."""

    def __init__(self, move: Work, device: Device, extent: int, most: int) -> None:
        self.move = move
        self.device = device
        self.extent = extent
        self.most = most
        self.ended = threading.Event()
        self.moved: Moved | None = None
        self.error: Exception | None = None

    def do(self) -> None:
        try:
            self.moved = self.move(self.device, self.extent, self.most)
        except Exception as error:
            self.error = error
        finally:
            self.ended.set()

    def result(self) -> Moved:
        """Waits for its end; what was raised is raised here."""
        self.ended.wait()
        if self.error is not None:
            raise self.error
        assert self.moved is not None
        return self.moved


class Movers:
    """The threads that do it, while the `with` block lasts; all moves have ended behind it."""

    def __init__(self) -> None:
        self.waiting: SimpleQueue[Move | None] = SimpleQueue()
        self.threads = [
            threading.Thread(target=self.work, name="mover", daemon=True)
            for _ in range(MOVES_AT_ONCE)
        ]

    def begin(self, move: Move) -> Move:
        self.waiting.put(move)
        return move

    def work(self) -> None:
        while (move := self.waiting.get()) is not None:
            move.do()

    def __enter__(self) -> Self:
        try:
            for thread in self.threads:
                thread.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        for _ in self.threads:
            self.waiting.put(None)
        for thread in self.threads:
            if thread.ident is not None:
                thread.join()
