# SPDX-License-Identifier: BSD-3-Clause
"""A parked guest that wants its memory back gets it.

It looks at the server alone: QEMU's monitor, which takes one client at a time, stays free for who
unparks by hand, and a server that restarts is waited for.
"""

import time
from collections.abc import Callable
from contextlib import suppress

import click

from preswapd.cli.park.interrupts import Interrupts
from preswapd.cli.park.machine import Machine, Traffic
from preswapd.cli.park.policy import MOST_READS, Wake
from preswapd.cli.park.telling import sizes, typed
from preswapd.cli.park.unpark import Given, woken
from preswapd.errors import UnreachableError

LOOK_SECONDS = 0.5


def watch(machine: Machine, interrupts: Interrupts, *, quiet: bool = False) -> None:
    """Until it was woken, or is not parked any more, or Ctrl-C."""

    def tell(text: str) -> None:
        if not quiet:
            click.echo(text, err=True)

    tell(f"{machine.name} gets all back once it reads {MOST_READS:.0f} pages a second")
    try:
        if wait_for_reads(machine, interrupts):
            tell(f"{machine.name} wakes up")
            given = wake(
                machine, interrupts, lambda: tell("QEMU's monitor does not answer: trying again")
            )
            if given is not None:
                tell(f"{machine.name} has {sizes(given.has, given.whole)}")
                return
        tell(f"{machine.name} is not parked any more")
    except KeyboardInterrupt:
        click.echo(
            f"{machine.name} stays parked, and nobody waits for it to wake up:"
            f" {typed(machine.instance, 'unpark', machine.name)} gives all back",
            err=True,
        )


def wait_for_reads(machine: Machine, interrupts: Interrupts) -> bool:
    """False where somebody else has unparked it, or it has ended."""
    traffic = Traffic(machine.instance, machine.devices)
    window: Wake | None = None
    while True:
        try:
            seen = traffic.look(room=False)
        except UnreachableError:
            window = None
        else:
            if not traffic.parked:
                return False
            window, wakes = (Wake(seen), False) if window is None else window.look(seen)
            if wakes:
                return True
        interrupts.check()
        time.sleep(LOOK_SECONDS)


def wake(machine: Machine, interrupts: Interrupts, complain: Callable[[], None]) -> Given | None:
    """None where it has ended meanwhile, or somebody else has unparked it."""
    traffic = Traffic(machine.instance, machine.devices)
    complained = False
    while (given := woken(machine, interrupts)) is None:
        if not complained:
            complain()
        complained = True
        with suppress(UnreachableError):
            traffic.look(room=False)
            if not traffic.parked:
                return None
        interrupts.check()
        time.sleep(LOOK_SECONDS)
    return given
