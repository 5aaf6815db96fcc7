# SPDX-License-Identifier: BSD-3-Clause
"""A shrink or a sync as the operator sees it: progress, Ctrl-C, and how it ended."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType

import click

from preswapd.api.client import Client, RunningShrink, knows_no_wait
from preswapd.api.messages import ShrinkProgress, ShrinkResult
from preswapd.api.progress import Pace
from preswapd.api.settings import POOL_LIMIT
from preswapd.api.wire import NotKeptError
from preswapd.cli.typed import control
from preswapd.errors import PartialError, UsageError
from preswapd.log import stderr_is_journal
from preswapd.units import format_pages

# Between two lines of progress in the journal, where each of them stays.
JOURNAL_SECONDS = 5.0


def run_shrink(client: Client, pages: int, device: str | None = None) -> ShrinkResult:
    """Shrinks to a number of pages; Ctrl-C stops the server's work and still gets its report."""
    return follow(client.shrink(pages, device))


def run_idle_shrink(client: Client, seconds: float, device: str | None = None) -> ShrinkResult:
    """The pages that nobody has used for so long; Ctrl-C as above."""
    return follow(client.idle_shrink(seconds, device))


def run_sync(client: Client, device: str | None = None) -> ShrinkResult:
    """All pages to disk, and the maps saved; Ctrl-C as above."""
    return follow(client.sync(device))


def follow(begun: AbstractContextManager[RunningShrink]) -> ShrinkResult:
    try:
        with begun as running, stopped_by_interrupt(running):
            report = running.wait(Progress().show)
    except KeyboardInterrupt:
        raise PartialError("interrupted; run it again to go on") from None
    finally:
        end_progress()
    warn_of_lost(report)
    return report


def set_and_fit(client: Client, key: str, value: str) -> int | str:
    """Sets it, waits until pages above a limit have gone, and returns the new value.  Ctrl-C ends
    only the waiting.

    PartialError when pages stay above it, NotKeptError when all is done but to keep the setting.
    """
    is_set = False
    try:
        with client.set_and_follow(key, value) as setting:
            is_set = True
            report = setting.wait(Progress().show)
    except UsageError as error:
        if is_set or not knows_no_wait(error):
            raise
        return set_on_older(client, key, value)
    except KeyboardInterrupt:
        if not is_set:
            raise
        shrink = control(client.socket_path.parent, "shrink")
        raise PartialError(
            f"interrupted: {key} is set, and the server goes on: `{shrink} --status` tells how far"
            f" it is, `{shrink} --stop` stops it"
        ) from None
    finally:
        end_progress()
    if report is not None:
        warn_of_lost(report)
        check_complete(report)
    if setting.not_kept:
        raise NotKeptError(key, setting.value, setting.not_kept)
    return setting.value


def set_on_older(client: Client, key: str, value: str) -> int | str:
    """The same where the server moves no page for a limit: it was not restarted when its package
    was.  PartialError when the pool stays above its limit."""
    now = client.set(key, value)
    tmem = client.stats()["tmem"]
    if key.endswith(f".{POOL_LIMIT.parameter}") and tmem["mem_used_total"] > tmem["mem_limit"]:
        shrink = control(client.socket_path.parent, "shrink")
        raise PartialError(
            f"{key} is set, but this server is older than preswapctl and moves no page for it:"
            f" restart it, which loses no page, or use `{shrink}`"
        )
    return now


def warn_of_lost(report: ShrinkResult) -> None:
    if report.lost:
        click.echo(
            f"preswapctl: {format_pages(report.lost)} could not be read back and are lost:"
            " the guest gets I/O errors for them",
            err=True,
        )


def check_complete(report: ShrinkResult) -> None:
    if not report.complete:
        raise PartialError(
            f"stopped with {format_pages(report.left)} still in tmem"
            f" ({report.reason or 'unfinished'}); run it again to go on"
        )


def check_synced(report: ShrinkResult) -> None:
    """The map may be what is missing, with all pages on disk."""
    if not report.complete:
        raise PartialError(
            f"a reboot of the host would lose pages: {report.reason or 'unfinished'},"
            f" {format_pages(report.left)} still in tmem; run it again to go on"
        )


@contextmanager
def stopped_by_interrupt(running: RunningShrink) -> Iterator[None]:
    """The first Ctrl-C asks the server to stop; the next one leaves without its report.

    In the background of a script Ctrl-C is ignored: it is meant for others.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        running.cancel()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Progress:
    """A line: on a terminal always the same one, in the journal a new one now and then."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.pause = JOURNAL_SECONDS if stderr_is_journal() else 0.0
        self.next_time = 0.0

    def show(self, step: ShrinkProgress) -> None:
        now = time.monotonic()
        text = self.pace.line(step, now)
        if now < self.next_time:
            return
        self.next_time = now + self.pause
        # The watcher has gone: the work goes on.
        with suppress(OSError):
            if sys.stderr.isatty():
                click.echo(f"\r\033[K{text[: room()]}", err=True, nl=False)
            else:
                click.echo(text, err=True)


def room() -> int | None:
    """What fits into a line of the terminal: of one that wraps only the last part is taken back."""
    columns = os.get_terminal_size(sys.stderr.fileno()).columns
    return columns - 1 if columns else None


def end_progress() -> None:
    """The cursor goes back to the start of a clean line."""
    with suppress(OSError):
        if sys.stderr.isatty():
            click.echo("\r\033[K", err=True, nl=False)
