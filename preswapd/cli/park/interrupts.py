# SPDX-License-Identifier: BSD-3-Clause
"""Ctrl-C, taken between two steps and never within one: what is said of it then is true."""

import signal
from types import FrameType


class Interrupts:
    def __init__(self) -> None:
        self.came = False

    def note(self) -> None:
        """From now on it raises nothing by itself.  In the background of a script it is ignored, as
        it is meant for others."""
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self.hear)

    def hear(self, number: int, frame: FrameType | None) -> None:
        self.came = True

    def check(self) -> None:
        if self.came:
            raise KeyboardInterrupt
