# SPDX-License-Identifier: BSD-3-Clause
"""The terminal during a live view: it gives single keys, and is left as it was found."""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

QUIT = b"qQ"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Ctrl-Z would leave a strange screen to the shell.
IGNORED = (signal.SIGTSTP,)


class Keyboard:
    """Waits for keys and for signals at once.

    A signal is only noted, and ends the waiting: an exception in the middle of drawing would leave
    half a picture, or a screen that nobody switches back.
    """

    def __init__(self, typing: int | None) -> None:
        self.typing = typing
        self.ended_by: int | None = None
        self.read_end, self.write_end = os.pipe()

    @property
    def exit_status(self) -> int:
        """Ctrl-C is how one leaves; other signals are as if they had ended the process."""
        if self.ended_by is None or self.ended_by == signal.SIGINT:
            return 0
        return 128 + self.ended_by

    def note_signal(self, number: int, frame: FrameType | None) -> None:
        self.ended_by = number
        os.write(self.write_end, b"!")

    def wait_for_quit(self, seconds: float) -> bool:
        """True as soon as q was pressed or a signal came, else False after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            sources = [self.read_end] if self.typing is None else [self.read_end, self.typing]
            ready, _, _ = select.select(sources, [], [], max(0.0, deadline - time.monotonic()))
            if not ready or self.read_end in ready:
                return bool(ready)
            assert self.typing is not None
            typed = os.read(self.typing, 64)
            if any(key in QUIT for key in typed):
                return True
            if not typed:  # the end of the input
                self.typing = None

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self.write_end)


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Keys without Enter and echo; the terminal's own settings come back in any case."""
    descriptor = sys.stdin.fileno() if sys.stdin.isatty() else None
    settings = None if descriptor is None else termios.tcgetattr(descriptor)
    board = Keyboard(descriptor)
    handlers = {number: signal.signal(number, board.note_signal) for number in ENDING}
    handlers |= {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
    try:
        if descriptor is not None:
            tty.setcbreak(descriptor)
        yield board
    finally:
        if descriptor is not None and settings is not None:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        board.close()
