# SPDX-License-Identifier: BSD-3-Clause
"""`top`: a live view of all instances."""

import shutil
import sys

import click
from rich.console import Console, Group
from rich.live import Live

from preswapd.cli.instances import Instances
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.look.terminal import keyboard
from preswapd.cli.look.top_view import HostMemory, View
from preswapd.cli.look.watching import Watch, ticks, until_interrupted
from preswapd.commandline import SECONDS
from preswapd.errors import UsageError
from preswapd.host.meminfo import available_memory
from preswapd.host.pressure import memory_pressure

# One server that hangs must not hold the view of the others, or the keyboard, for long.
PATIENCE = 2.0
# Of a frame where there is no terminal to ask, and COLUMNS is not set.
PLAIN_SIZE = (120, 24)


@click.command("top")
@click.option("-b", "--batch", is_flag=True, help="Print plain frames, without a terminal.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Stop after N frames.")
@click.option(
    "-d", "--interval", type=SECONDS, default="1", help="Seconds between two frames. Default: 1."
)
@pass_invocation
def top_command(invocation: Invocation, batch: bool, count: int | None, interval: float) -> int:
    """Watch the pools and devices of all instances; q or Ctrl-C ends it.

    The columns are those of `stats --watch`. The first frame has no rates: a script wants -n 2 at
    least. An instance that goes away is shown as away until it is back, and so is one that does not
    run while its guests' pages are in memory.

    \b
    Examples:
      preswapctl top
      preswapctl --instance vm1 top --interval 5
      preswapctl top --batch -n 2
    """
    if invocation.json:
        raise UsageError("top is for people: use stats --json-lines for programs")
    look = Look(invocation.instances)
    if batch:
        print_frames(look, interval, count)
        return 0
    if not sys.stdout.isatty():
        raise UsageError("there is no terminal to draw on: --batch prints plain frames")
    console = Console(highlight=False)
    if console.is_dumb_terminal:
        raise UsageError("this terminal can only print lines (TERM): --batch prints plain frames")
    return show(console, look, interval, count)


class Look:
    """All that a frame shows."""

    def __init__(self, instances: Instances) -> None:
        self.instances = instances
        self.watch = Watch(instances.running, PATIENCE)

    def frame(self, view: View) -> Group:
        found = self.watch.look()
        # One that has been started since is among the others.
        stopped = [
            gone for gone in self.instances.stopped if gone.runtime_dir not in self.watch.watched
        ]
        host = HostMemory(available_memory(), memory_pressure())
        return view.frame(found, host, stopped)


def print_frames(look: Look, interval: float, count: int | None) -> None:
    width = shutil.get_terminal_size(PLAIN_SIZE).columns
    console = Console(width=width, color_system=None, force_terminal=False, highlight=False)
    view = View(console, interval)
    with until_interrupted():
        for turn in ticks(interval, count):
            if turn:
                console.print()
            console.print(look.frame(view))
            sys.stdout.flush()


def show(console: Console, look: Look, interval: float, count: int | None) -> int:
    view = View(console, interval)
    first = look.frame(view)
    with (
        keyboard() as board,
        Live(first, console=console, screen=True, auto_refresh=False) as live,
    ):
        for turn in ticks(interval, count, board.wait_for_quit):
            if turn:
                live.update(look.frame(view), refresh=True)
    return board.exit_status
