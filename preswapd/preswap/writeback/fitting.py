# SPDX-License-Identifier: BSD-3-Clause
"""A limit that is lowered takes effect by itself: pages above it go to disk."""

import threading
import time
from collections.abc import Callable, Mapping

from preswapd.preswap.writeback.goals import Goal
from preswapd.preswap.writeback.moves import RETRY_SECONDS
from preswapd.preswap.writeback.shrink import Shrink, Shrinks


class Fitting:
    """Keeps the limits: when one is set, at the start, and again after a failure."""

    def __init__(self, shrinks: Shrinks, limits: Callable[[], Mapping[str, Goal]]) -> None:
        self.shrinks = shrinks
        self.limits = limits
        self.fits: dict[str, Shrink | None] = {}  # the last one of each limit; None: it was kept
        self.by_itself: Shrink | None = None  # the last one that no setting has asked for
        self.fitting = threading.Lock()

    def fit(self, key: str) -> Shrink | None:
        """After a setting has changed: what makes it true, if anything has to."""
        goal = self.limits().get(key)
        return None if goal is None else self.begin(key, goal)

    def begin(self, key: str, goal: Goal) -> Shrink | None:
        with self.fitting:
            self.fits[key] = self.shrinks.fit(goal)
            return self.fits[key]

    def begin_again(self, goal: Goal) -> Shrink | None:
        """For what no operator has set, and what changes by itself: not soon after a failure."""
        with self.fitting:
            before = self.by_itself
            if before is not None and not before.ended.is_set():
                return before
            if before is not None and self.is_too_soon(before):
                return None
            fit = self.shrinks.fit(goal)
            if fit is not None:
                self.by_itself = fit
            return fit

    def turn(self) -> None:
        """To be called a few times a second."""
        for key, goal in self.limits().items():
            if self.is_due(key):
                self.begin(key, goal)
        with self.fitting:
            # A removed device's fit would keep the device in memory, with its maps.
            for key in self.fits.keys() - self.limits().keys():
                del self.fits[key]

    def is_due(self, key: str) -> bool:
        """Not looked at since the start, or its fit failed a while ago.

        One that an operator has stopped is not: until the limit is set again, or the next start.
        """
        if key not in self.fits:
            return True
        fit = self.fits[key]
        return fit is not None and fit.has_failed and not self.is_too_soon(fit)

    def is_too_soon(self, fit: Shrink) -> bool:
        """It failed, or was stopped, a moment ago."""
        return fit.has_ended_short and time.monotonic() - fit.ended_at < RETRY_SECONDS
