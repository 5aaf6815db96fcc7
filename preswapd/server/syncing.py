# SPDX-License-Identifier: BSD-3-Clause
"""`preswapd serve --sync-and-exit`: what a stopped or killed server left in memory goes to disk.

Nobody is served, and the devices are those that are there: none is made.
"""

import signal
import time
from dataclasses import replace
from types import FrameType

from preswapd.api.messages import ShrinkResult
from preswapd.api.progress import Pace
from preswapd.errors import PartialError
from preswapd.host.filesystems import is_there
from preswapd.log import INFO, WARNING, log
from preswapd.preswap.instance import Instance
from preswapd.preswap.opening import check
from preswapd.preswap.settings import Settings
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.server import directories, locks, stopping
from preswapd.server.config.merged import Config
from preswapd.units import format_pages

# Between two lines about the progress.
TOLD_SECONDS = 5.0


def sync(config: Config) -> None:
    """RefusedError where a server runs, or a start of it would be refused; PartialError where not
    all is on disk afterwards."""
    settings = replace(config.settings, devices=(), refuse_touched=True)
    directories.prepare(settings.paths, settings.pool_size)
    # They last as long as this process.
    locks.take(settings.paths)
    check(settings)
    if not has_work(settings):
        log(INFO, f"instance {settings.instance}: nothing is in memory, nothing to do")
        return
    instance = Instance(settings, log)
    try:
        result = followed(instance.begin_sync())
    finally:
        instance.close()
    if result.lost:
        lost = format_pages(result.lost)
        log(WARNING, f"{lost} could not be read back and are lost: guests get I/O errors for them")
    if not result.complete:
        raise PartialError(f"a reboot of the host would lose pages: {why(result)}")
    moved = format_pages(result.moved)
    log(INFO, f"instance {settings.instance}: all pages are on disk, {moved} of them moved now")


def why(result: ShrinkResult) -> str:
    reason = result.reason or "unfinished"
    if not result.left:
        return reason
    return f"{reason}, {format_pages(result.left)} still in memory; run it again to go on"


def has_work(settings: Settings) -> bool:
    """Without an arena all that is known is on disk, and was saved there."""
    return is_there(settings.paths.arena) or settings.discard_state or settings.accept_moved


def followed(shrink: Shrink) -> ShrinkResult:
    """To its end, with a line now and then; a signal ends it between two writes."""

    def stop(number: int, frame: FrameType | None) -> None:
        # Another one that came meanwhile would wait for ever for the locks that this one has.
        for each in stopping.SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        shrink.stop()

    for number in stopping.SIGNALS:
        signal.signal(number, stop)
    pace = Pace()
    pace.line(shrink.progress, time.monotonic())
    while not shrink.ended.wait(TOLD_SECONDS):
        log(INFO, f"sync: {pace.line(shrink.progress, time.monotonic())}")
    return shrink.wait()
