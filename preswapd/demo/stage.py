# SPDX-License-Identifier: BSD-3-Clause
"""What the steps of the demonstration share: server, guest and work, and how they are watched."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from preswapd.demo.checks import Checks, DemoError
from preswapd.demo.material import Material
from preswapd.demo.measured import Counters, Figures, figures, live_line
from preswapd.demo.screen import Screen
from preswapd.demo.server import Server
from preswapd.demo.work import Tools, Work
from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import Guest
from preswapd.guest.readings import SwapTraffic, swap_traffic
from preswapd.units import PAGE_SIZE

LIVE_SECONDS = 1.0
POLL_SECONDS = 0.1
QUIET_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """What the user chose."""

    pool_size: int
    guest_available: int
    device: str
    device_size: int
    given_kernel: tuple[Path, Path] | None


@dataclass(frozen=True)
class BothCounts:
    """Pages in and out by the guest's count and by the server's, at a moment without any I/O."""

    guest: SwapTraffic
    server: Counters


@dataclass
class Records:
    """What the summary tells; sizes in bytes."""

    started: float = field(default_factory=time.monotonic)
    guest_memory: int = 0
    # Of servers that have ended.
    earlier: Counters = field(default_factory=Counters)
    most_swap: int = 0
    # When tmem held the most pages.
    peak: Figures | None = None
    shrink_freed: int = 0
    shrink_seconds: float = 0.0
    discard_freed: int = 0
    stall_seconds: float = 0.0
    last: Figures | None = None

    def note(self, now: Figures, swap_used: int) -> None:
        self.most_swap = max(self.most_swap, swap_used)
        if self.peak is None or now.original > self.peak.original:
            self.peak = now
        self.last = now

    def end_life(self, last: Figures) -> None:
        """The server is about to end, and its counters with it."""
        self.earlier += last.counters
        self.last = None

    @property
    def total(self) -> Counters:
        """Of all lives of the server, as far as they were seen."""
        return self.earlier + (self.last.counters if self.last else Counters())


class Stage:
    """Steps set `kernel`, `material` and so on when they come to it."""

    kernel: Kernel
    tools: Tools
    material: Material
    words_here: str
    server: Server
    guest: Guest
    work: Work
    before_filling: BothCounts
    swap_path: str

    def __init__(self, settings: Settings, screen: Screen, cache: Path) -> None:
        self.settings = settings
        self.screen = screen
        self.cache = cache
        self.checks = Checks()
        self.records = Records()
        self.stack = ExitStack()

    # --- looking ---

    def look(self) -> Figures:
        """The server's figures now."""
        self.server.check_alive()
        return figures(self.server.client.stats(), self.settings.device)

    def show(self) -> Figures:
        """Reads both sides and rewrites the live line."""
        areas = self.guest.swaps()
        now = self.look()
        self.records.note(now, sum(area.used for area in areas))
        seconds = time.monotonic() - self.records.started
        self.screen.live(live_line(seconds, now, areas, self.settings.pool_size))
        return now

    def watch(self, done: Callable[[Figures], bool], seconds: float, what: str) -> Figures:
        """Shows the figures until `done` of them; DemoError when that takes too long."""
        deadline = time.monotonic() + seconds
        while not done(now := self.show()):
            if time.monotonic() > deadline:
                raise DemoError(f"after {seconds:.0f} s still waiting for {what}")
            time.sleep(LIVE_SECONDS)
        self.screen.keep_live()
        return now

    def quiet(self) -> BothCounts:
        """Both sides' counts while no page moves, so that they can be compared exactly."""
        deadline = time.monotonic() + QUIET_SECONDS
        before = self._both_counts()
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            now = self._both_counts()
            if now == before:
                return now
            before = now
        raise DemoError("the guest's swap traffic does not come to rest")

    def _both_counts(self) -> BothCounts:
        return BothCounts(swap_traffic(self.guest.vmstat()), self.look().counters)

    # --- comparing ---

    def check_traffic(self, before: BothCounts, after: BothCounts, when: str) -> None:
        out = after.guest.swapped_out - before.guest.swapped_out
        back = after.guest.swapped_in - before.guest.swapped_in
        written = after.server.written - before.server.written
        read = after.server.read - before.server.read
        self.check(
            (out, back) == (written, read),
            f"{when}, the guest swapped {out:,} pages out and {back:,} in;"
            f" the server took {written:,} and gave {read:,}",
        )

    def check_area(self, when: str) -> None:
        """The guest's slot caches hold back some slots that nothing was written to yet, and Linux
        from 6.11 on keeps pages of zeros to itself."""
        used = sum(area.used for area in self.guest.swaps()) // PAGE_SIZE
        kept = self.look().kept
        zeros = self.guest.vmstat().get("swpout_zero", 0)
        spare = 128 * self.guest.hardware.processors + zeros
        self.check(
            used <= kept + spare,
            f"{when}, /proc/swaps counted {used:,} pages in use and the server kept {kept:,}",
        )

    def check(self, good: bool, sentence: str) -> None:
        made = self.checks.that(good, sentence)
        if made.good:
            self.screen.detail(sentence)
        else:
            self.screen.verdict(False, sentence)
