"""A shrink as the operator sees it: progress, Ctrl-C, and how it ended."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import click

from preswapd.control.client import Client, RunningShrink
from preswapd.control.protocol import ShrinkReport, ShrinkStep
from preswapd.errors import PartialError
from preswapd.units import PAGE_SIZE, format_size


def run_shrink(client: Client, pages: int, device: str | None = None) -> ShrinkReport:
    """Shrinks to so many pages; Ctrl-C stops the server's work and still gets its report."""
    try:
        with client.shrink(pages, device) as running, stopped_by_interrupt(running):
            report = running.wait(show_progress)
    except KeyboardInterrupt:
        raise PartialError("interrupted; run it again to go on") from None
    finally:
        end_progress()
    if report.lost:
        click.echo(
            f"preswapctl: {count(report.lost)} could not be read back and are lost:"
            " the guest gets I/O errors for them",
            err=True,
        )
    return report


def check_complete(report: ShrinkReport) -> None:
    if not report.complete:
        raise PartialError(
            f"stopped with {count(report.left)} still in tmem ({report.reason or 'unfinished'});"
            " run it again to go on"
        )


def count(pages: int) -> str:
    return f"{pages} {'page' if pages == 1 else 'pages'} ({format_size(pages * PAGE_SIZE)})"


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


def show_progress(step: ShrinkStep) -> None:
    text = f"{count(step.moved)} moved, {step.left} left, target {step.target}"
    # Whoever watched has gone: the work goes on.
    with suppress(OSError):
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{text}", err=True, nl=False)
        else:
            click.echo(text, err=True)


def end_progress() -> None:
    """The cursor goes back to the start of a clean line."""
    with suppress(OSError):
        if sys.stderr.isatty():
            click.echo("\r\033[K", err=True, nl=False)
