"""A shrink as the operator sees it: progress, Ctrl-C, and how it ended."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from preswapd.api.client import Client, RunningShrink
from preswapd.api.messages import ShrinkProgress, ShrinkResult
from preswapd.errors import PartialError, RefusedError
from preswapd.host.filesystems import free_bytes
from preswapd.units import PAGE_SIZE, format_pages, format_size

# A pool's memory shrinks a little less than its pages do: how often it is tried anew.
FITTING_ROUNDS = 8
# So much less than what the pool's average page says.
FITTING_MARGIN = 0.02


@dataclass(frozen=True)
class ShrinkPlan:
    """What a shrink would do, in pages; bytes that the disk has free, and whether they suffice."""

    pages: int
    left: int
    disk_free: int
    fits: bool


def run_shrink(client: Client, pages: int, device: str | None = None) -> ShrinkResult:
    """Shrinks to so many pages; Ctrl-C stops the server's work and still gets its report."""
    try:
        with client.shrink(pages, device) as running, stopped_by_interrupt(running):
            report = running.wait(Progress().show)
    except KeyboardInterrupt:
        raise PartialError("interrupted; run it again to go on") from None
    finally:
        end_progress()
    if report.lost:
        click.echo(
            f"preswapctl: {format_pages(report.lost)} could not be read back and are lost:"
            " the guest gets I/O errors for them",
            err=True,
        )
    return report


def check_complete(report: ShrinkResult) -> None:
    if not report.complete:
        raise PartialError(
            f"stopped with {format_pages(report.left)} still in tmem"
            f" ({report.reason or 'unfinished'}); run it again to go on"
        )


@contextmanager
def stopped_by_interrupt(running: RunningShrink) -> Iterator[None]:
    """The first Ctrl-C asks the server to stop; the next one leaves without its report."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        running.cancel()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def plan_shrink(client: Client, pages: int, device: str | None) -> ShrinkPlan:
    devices = client.devices()
    chosen = [client.device(device)] if device is not None else list(devices.values())
    there = sum(int(counters["preswap_pages"]) for counters in chosen)
    moved = max(0, there - pages)
    free = free_bytes(Path(client.facts().state_dir))
    return ShrinkPlan(moved, there - moved, free, moved * PAGE_SIZE <= free)


def fit_pool(client: Client) -> ShrinkResult:
    """Moves pages to disk until the pool's memory is within its limit, which is set already."""
    moved = lost = rounds = 0
    while True:
        tmem = client.stats()["tmem"]
        left, used, limit = tmem["stored_pages"], tmem["mem_used_total"], tmem["mem_limit"]
        if used <= limit or not left or rounds == FITTING_ROUNDS:
            break
        try:
            report = run_shrink(client, int(left * limit / used * (1 - FITTING_MARGIN)))
        except RefusedError as error:
            raise PartialError(
                f"the limit is set and the pool still above it: {error}; run it again to go on"
            ) from None
        rounds, moved, lost = rounds + 1, moved + report.moved, lost + report.lost
        if not report.complete:
            return report
    return ShrinkResult(moved, left, lost, used <= limit, "the pool is still above its limit")


class Progress:
    """A line, with the rate so far and how long the rest will take at it."""

    def __init__(self) -> None:
        self.begun = time.monotonic()

    def show(self, step: ShrinkProgress) -> None:
        text = f"{format_pages(step.moved)} moved, {step.left} left, target {step.target}"
        seconds = time.monotonic() - self.begun
        if step.moved and seconds > 0:
            rate = step.moved / seconds
            rest = max(0, step.left - step.target) / rate
            text += f", {format_size(int(rate) * PAGE_SIZE)}/s, {rest:.0f} s to go"
        # Whoever watched has gone: the work goes on.
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
