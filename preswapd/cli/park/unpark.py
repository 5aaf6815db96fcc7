# SPDX-License-Identifier: BSD-3-Clause
"""`unpark`: the balloon is emptied, at once and whole."""

import time
from pathlib import Path
from typing import NamedTuple

import click

from preswapd.api.messages import Parked
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.monitor import QMP_HELP, monitor_at
from preswapd.cli.output import print_json
from preswapd.cli.park.balloon import Balloon
from preswapd.cli.park.interrupts import Interrupts
from preswapd.cli.park.machine import Machine, Named, named
from preswapd.cli.park.policy import SLACK
from preswapd.cli.park.telling import OTHERWISE, sizes
from preswapd.commandline import FILE, MACHINE
from preswapd.errors import PartialError, RefusedError, UnreachableError, UsageError
from preswapd.qmp import MonitorError

# A guest takes a GiB out of its balloon in less than a second, under emulation in some.
TAKE_SECONDS = 30.0
POLL_SECONDS = 0.05


class Given(NamedTuple):
    """What became of it: `has` of `whole`, and QEMU was told to give all."""

    has: int
    whole: int
    state: str  # of the virtual machine

    @property
    def is_all(self) -> bool:
        return self.has >= self.whole - SLACK


@click.command("unpark")
@click.argument("machine", type=MACHINE, metavar="INSTANCE|DEV")
@click.option(
    "--qmp",
    type=FILE,
    metavar="SOCK",
    help=f"{QMP_HELP} Default: that of `preswapctl park`.",
)
@pass_invocation
def unpark_command(invocation: Invocation, machine: str, qmp: Path | None) -> None:
    """Give a parked virtual machine all of its memory back, at once.

    What its guest has swapped out it reads back when it needs it. With --qmp it also empties a
    balloon that the server knows nothing of, and works while no server runs.

    \b
    Example:
      preswapctl unpark vm1
    """
    interrupts = Interrupts()
    try:
        meant = named(invocation.instances, machine)
        parked = meant.parked()
    except UnreachableError as error:
        if qmp is None:
            raise
        given = without_server(qmp, interrupts)
        raise PartialError(
            f"QEMU at {qmp} was told to give all back ({sizes(given.has, given.whole)} by now); its"
            f" server did not hear of it: {error}. Run it again when there is one"
        ) from None
    at = qmp or place_of(meant, parked)
    with monitor_at(at, OTHERWISE) as monitor:
        found = Machine(meant, monitor, at)
        if parked:
            found.check_attached()
        balloon = Balloon(monitor)
        interrupts.note()
        given = give_back(found, balloon, interrupts)
    tell(invocation, found.name, given)


def place_of(meant: Named, parked: dict[str, Parked]) -> Path:
    """The monitor of the one that is parked."""
    if not parked:
        raise RefusedError(
            f"{meant.name} is not parked, as far as its server knows; to empty its balloon all the"
            " same, name QEMU's monitor with --qmp"
        )
    one, *others = parked.values()
    if any((other.pid, other.qmp) != (one.pid, one.qmp) for other in others):
        raise UsageError(
            f"several virtual machines of {meant.name} are parked: name a device of the one that"
            f" you mean ({', '.join(parked)})"
        )
    return Path(one.qmp)


def without_server(qmp: Path, interrupts: Interrupts) -> Given:
    with monitor_at(qmp, OTHERWISE) as monitor:
        balloon = Balloon(monitor)
        interrupts.note()
        return emptied(balloon, interrupts)


def give_back(machine: Machine, balloon: Balloon, interrupts: Interrupts) -> Given:
    """Ctrl-C ends only the waiting for the guest.

    QEMU first: where this is killed in between, it is thought to be parked, and can be unparked
    once more."""
    whole = balloon.whole()
    balloon.leave(whole)
    machine.forget()
    return emptied(balloon, interrupts)


def emptied(balloon: Balloon, interrupts: Interrupts) -> Given:
    """Waits while the guest takes it, which is quick."""
    whole = balloon.whole()
    balloon.leave(whole)
    deadline = time.monotonic() + TAKE_SECONDS
    while True:
        given = Given(balloon.has(), whole, balloon.state())
        if given.is_all or given.state != "running":
            return given
        if interrupts.came or time.monotonic() > deadline:
            return given
        time.sleep(POLL_SECONDS)


def tell(invocation: Invocation, name: str, given: Given) -> None:
    if invocation.json:
        print_json({"name": name, "whole": given.whole, "has": given.has, "state": given.state})
    elif given.is_all:
        click.echo(f"{name} has all of its memory: {sizes(given.has, given.whole)}")
    if not given.is_all:
        why = "takes its time" if given.state == "running" else f"does not run ({given.state})"
        raise PartialError(
            f"QEMU gives {name} all of its memory as its guest asks for it, and that {why}: it has"
            f" {sizes(given.has, given.whole)}"
        )


def woken(machine: Machine, interrupts: Interrupts) -> Given | None:
    """None where QEMU could not be told, as another program speaks to it, say, or the server did
    not hear of it."""
    try:
        with monitor_at(machine.qmp, OTHERWISE) as monitor:
            return give_back(machine, Balloon(monitor), interrupts)
    except (MonitorError, UnreachableError):
        return None
