# SPDX-License-Identifier: BSD-3-Clause
"""The command `preswapd demo` and its options."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from preswapd.commandline import SIZE
from preswapd.demo.scenario import STEPS
from preswapd.demo.screen import Screen
from preswapd.demo.stage import Settings, Stage
from preswapd.demo.summary import show_summary
from preswapd.errors import PreswapError, UsageError
from preswapd.guest.faults import SetupError
from preswapd.guest.kernel import default_cache
from preswapd.units import format_size

PATH = click.Path(path_type=Path)
DEVICE = "demo"
DEVICE_SIZE = 512 << 20
# For the guest's programs, of its memory.
GUEST_AVAILABLE = 67 << 20
# Half of what the guest swaps fits into it, so that some must go to disk.
POOL_SIZE = "24M"
MOST_POOL = 40 << 20
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("demo")
@click.option("--kernel", type=PATH, metavar="FILE", help="A kernel to boot, with --modules.")
@click.option("--modules", type=PATH, metavar="DIR", help="Its modules, as /lib/modules/VERSION.")
@click.option(
    "--pool-size", type=SIZE, default=POOL_SIZE, help=f"Memory for pages. Default: {POOL_SIZE}."
)
@click.option("-v", "--verbose", is_flag=True, help="Show each check when it is made, and more.")
def demo_command(kernel: Path | None, modules: Path | None, pool_size: int, verbose: bool) -> int:
    """Boot a Linux guest that swaps through preswapd, and check every byte.

    Takes about two minutes, needs no root, and leaves nothing behind but the guest's kernel in the
    user's cache, which is fetched from Debian or Ubuntu unless one is named. Exit status 0: all was
    as promised; 1: it was not.

    \b
    Examples:
      preswapd demo
      preswapd demo --kernel /boot/vmlinuz-6.1.0-9 --modules /lib/modules/6.1.0-9
    """
    if (kernel is None) != (modules is None):
        raise UsageError("--kernel and --modules go together")
    if pool_size > MOST_POOL:
        raise UsageError(
            f"--pool-size: more than {format_size(MOST_POOL)} would never be full here"
        )
    given = None if kernel is None or modules is None else (kernel, modules)
    settings = Settings(pool_size, GUEST_AVAILABLE, DEVICE, DEVICE_SIZE, given)
    stage = Stage(settings, Screen(verbose=verbose), default_cache())
    with endings_interrupt(), stage.stack:
        play(stage)
    show_summary(stage)
    return 1 if stage.checks.failed else 0


def play(stage: Stage) -> None:
    """A step that cannot be carried out is a check that failed, and the last one."""
    for step in STEPS:
        stage.screen.title(step.title)
        try:
            step.run(stage)
        except (SetupError, UsageError):
            raise
        except PreswapError as error:
            for note in getattr(error, "__notes__", []):
                stage.screen.say(note)
            stage.check(False, f"{step.title}: {error}")
            return
        finally:
            stage.screen.keep_live()


@contextmanager
def endings_interrupt() -> Iterator[None]:
    """The first signal to end ends everything in order; what follows does not disturb that."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {ending: signal.signal(ending, interrupt) for ending in ENDINGS}
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)
