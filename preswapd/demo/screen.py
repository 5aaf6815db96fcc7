# SPDX-License-Identifier: BSD-3-Clause
"""What the demonstration shows while it runs: titles, commands, and one line of live figures."""

import shutil
import sys
import time

import click

# Without a terminal each line stays, so there are fewer of them.
PLAIN_SECONDS = 5.0


class Screen:
    """Writes to standard output; the live line is rewritten in place on a terminal."""

    def __init__(self, *, verbose: bool) -> None:
        self.verbose = verbose
        self._tty = sys.stdout.isatty()
        self._live = False
        self._next_plain = 0.0

    def title(self, text: str) -> None:
        self._line("")
        self._line(click.style(text, bold=True))

    def say(self, text: str) -> None:
        self._line(f"  {text}")

    def detail(self, text: str) -> None:
        if self.verbose:
            self._line(click.style(f"  {text}", dim=True))

    def command(self, text: str) -> None:
        self._line(click.style(f"  $ {text}", fg="cyan"))

    def verdict(self, good: bool, text: str) -> None:
        mark = click.style("ok", fg="green") if good else click.style("FAILED", fg="red", bold=True)
        self._line(f"  {mark}  {text}")

    def live(self, text: str) -> None:
        if self._tty:
            width = shutil.get_terminal_size().columns - 1
            click.echo(f"\r\033[K{f'  {text}'[:width]}", nl=False)
            self._live = True
        elif time.monotonic() >= self._next_plain:
            self._line(f"  {text}")
            self._next_plain = time.monotonic() + PLAIN_SECONDS
        sys.stdout.flush()

    def keep_live(self) -> None:
        """The live line stays as it is; what follows goes below it."""
        if self._live:
            click.echo()
            self._live = False

    def _line(self, text: str) -> None:
        self.keep_live()
        click.echo(text)
        sys.stdout.flush()
