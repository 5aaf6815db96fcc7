# SPDX-License-Identifier: BSD-3-Clause
"""`park`: the balloon of an idle guest is blown up in steps while the guest swaps."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import click

from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.monitor import QMP_HELP, monitor_at
from preswapd.cli.output import print_json
from preswapd.cli.park.balloon import OPTION, Balloon
from preswapd.cli.park.interrupts import Interrupts
from preswapd.cli.park.machine import Machine, Traffic, named
from preswapd.cli.park.policy import (
    MIB,
    PAGE,
    SLACK,
    Action,
    Rules,
    Seen,
    State,
    after_absence,
    begin,
    decide,
    default_floor,
    may_be_swapped,
    rules_for,
)
from preswapd.cli.park.telling import OTHERWISE, host_memory, sizes, taken, typed
from preswapd.cli.park.watch import watch
from preswapd.commandline import FILE, MACHINE, SIZE
from preswapd.errors import PartialError, RefusedError, UnreachableError, UsageError
from preswapd.host.huge_pages import FOLDER, MOST_MISSING, holes_are_filled
from preswapd.units import exact_size, format_size

T = TypeVar("T")

LOOK_SECONDS = 0.5
# A server that is restarted is back sooner.
AWAY_SECONDS = 30.0

ENDS: Mapping[Action, str] = {
    Action.THRASHES: "with less its guest reads back all the time what it has swapped out",
    Action.STUCK: (
        "its guest gives no more: it needs the rest, does not swap there (swapon --show in the"
        " guest), or has no driver for the balloon (modprobe virtio_balloon)"
    ),
    Action.FULL: "there is no room for more of its pages in its devices, or in pool and disk file",
}


class Plan(NamedTuple):
    """What was seen before anything is done."""

    whole: int
    has: int
    floor: int
    swap: int  # the most that the guest swaps out for it
    room: int  # for so much more of it

    def as_json(self) -> dict[str, int]:
        return self._asdict()

    @property
    def rules(self) -> Rules:
        return rules_for(self.has, self.floor)


@click.command("park")
@click.argument("machine", type=MACHINE, metavar="INSTANCE|DEV")
@click.option("--qmp", type=FILE, required=True, metavar="SOCK", help=QMP_HELP)
@click.option(
    "--floor",
    type=SIZE,
    help="How much memory it is left with. Default: a seventh, and no less than 128M.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--watch",
    "watches",
    is_flag=True,
    help="Stay, and give all back once its guest reads 100 pages a second.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Go ahead although the balloon is without deflate-on-oom=on.",
)
@pass_invocation
def park_command(
    invocation: Invocation,
    machine: str,
    qmp: Path,
    floor: int | None,
    dry_run: bool,
    watches: bool,
    force: bool,
) -> None:
    """Leave an idle virtual machine a fraction of its memory; it runs on, and swaps the rest.

    It is the one at SOCK, which must have that device attached, or one of that instance. Its
    balloon takes memory in steps until its guest has the floor left. It stops by itself where the
    guest thrashes, gives no more, or has no room to swap: what was taken by then stays taken, with
    exit status 5, and so it does with Ctrl-C; once it is parked, Ctrl-C ends --watch, with exit
    status 0. `unpark` gives all back at once. For a guest of libvirt, which keeps the socket to
    itself, use virsh setmem.

    QEMU needs -device virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on. The server
    keeps which devices are parked, and `list` shows it.

    \b
    Examples:
      preswapctl park vm1 --qmp /run/vm1.qmp --dry-run
      preswapctl park vm1 --qmp /run/vm1.qmp --floor 256M
      systemd-run --unit=park-vm1 preswapctl park vm1 --qmp /run/vm1.qmp --watch
    """
    if dry_run and watches:
        raise UsageError("--dry-run does nothing that could be watched")
    meant = named(invocation.instances, machine)
    interrupts = Interrupts()
    with monitor_at(qmp, OTHERWISE) as monitor:
        found = Machine(meant, monitor, qmp)
        parker = Parker(found, Balloon(monitor))
        plan = parker.plan(floor)
        parker.check(plan, force)
        if dry_run:
            print_plan(invocation, found, plan)
            return
        interrupts.note()
        parker.park(plan, interrupts, quiet=invocation.json)
    if invocation.json or parker.ending is None:
        print_parked(invocation, found, parker)
    if parker.ending is not None and not watches:
        raise PartialError(parker.complaint())
    if parker.ending is not None:
        click.echo(f"preswapctl: {parker.complaint()}", err=True)
    if watches:
        watch(found, interrupts, quiet=invocation.json)


class Parker:
    """One machine on its way to the floor; `target` is what QEMU was told last."""

    def __init__(self, machine: Machine, balloon: Balloon) -> None:
        self.machine = machine
        self.balloon = balloon
        self.traffic = Traffic(machine.instance, machine.devices)
        self.before = host_memory(machine.monitor.pid)
        self.whole = balloon.whole()
        self.target = self.started = balloon.has()
        self.guest_before = 0
        self.ending: str | None = None  # why it stopped before the floor
        self.now: int | None = None

    # --- before anything is done ---

    def plan(self, floor: int | None) -> Plan:
        lowest = default_floor(self.whole) if floor is None else floor
        if not MIB <= lowest <= self.whole:
            raise UsageError(
                f"--floor must be 1M to {exact_size(self.whole)}, which is all of its memory"
            )
        self.machine.check_attached()
        state = self.balloon.state()
        if state != "running":
            raise RefusedError(
                f"{self.machine.name} does not run ({state}): its guest can give nothing back"
            )
        with self.balloon.asked_for_stats():
            available = self.balloon.first_stats().available
        swap = may_be_swapped(self.started, lowest, available)
        return Plan(self.whole, self.started, lowest, swap, self.traffic.look().room)

    def check(self, plan: Plan, force: bool) -> None:
        if not self.balloon.gives_back and not force:
            raise RefusedError(
                "its balloon would not give memory back before its guest kills a program for want"
                f" of some: start QEMU with {OPTION} (--force goes ahead without)"
            )
        short = plan.swap - plan.room
        if short > 0:
            higher = -(-(plan.floor + short) // MIB) * MIB
            raise RefusedError(
                f"its guest may swap out {format_size(plan.swap)}, and there is room for"
                f" {format_size(plan.room)}: {format_size(short)} is missing in"
                f" {', '.join(self.machine.devices)}, or in the pool and on disk (--floor"
                f" {exact_size(higher)} needs no more)"
            )

    # --- step by step ---

    def park(self, plan: Plan, interrupts: Interrupts, *, quiet: bool) -> None:
        try:
            with self.balloon.asked_for_stats():
                action = self.go(plan.rules, interrupts, quiet)
        except KeyboardInterrupt:
            if self.target == self.started:
                raise
            raise PartialError(f"interrupted: {self.state()}") from None
        except UnreachableError as error:
            raise UnreachableError(f"{error}; {self.state()}") from None
        except RefusedError as error:
            if self.target == self.started:
                raise
            raise PartialError(f"{error}; {self.state()}") from None
        self.now = host_memory(self.machine.monitor.pid)
        if action is Action.DONE:
            return
        why, state = ENDS[action], self.balloon.state()
        if state != "running":
            why = f"it does not run any more ({state})"
        if self.target >= self.started - SLACK and self.started >= self.whole - SLACK:
            self.balloon.leave(self.whole)
            self.machine.forget()
            raise RefusedError(f"{self.machine.name} was not parked: {why}")
        self.ending = why

    def go(self, rules: Rules, interrupts: Interrupts, quiet: bool) -> Action:
        self.guest_before = self.balloon.stats().swapped_in or 0
        state, action = begin(rules, self.look(interrupts))
        if action is Action.DONE:
            # Perhaps by somebody else: from now on it is known.  It may be on its last bit of the
            # way to the floor.
            self.machine.note(min(self.target, rules.floor), self.whole)
        interrupts.check()
        while True:
            if state.target != self.target:
                self.order(state.target, interrupts)
                if not quiet:
                    click.echo(self.line(state), err=True)
            if action not in (Action.WAIT, Action.STEP):
                return action
            time.sleep(LOOK_SECONDS)
            interrupts.check()
            run = self.traffic.run
            seen = self.look(interrupts)
            if self.traffic.run != run:
                state = after_absence(state, seen)
            state, action = decide(rules, state, seen)

    def order(self, target: int, interrupts: Interrupts) -> None:
        """The server first: one that is killed in between is thought to have less than it has."""
        patiently(lambda: self.machine.note(target, self.whole), interrupts)
        self.target = target
        self.balloon.leave(target)

    def look(self, interrupts: Interrupts) -> Seen:
        seen = patiently(lambda: self.traffic.look(self.balloon.has()), interrupts)
        # Its guest may swap to other disks too.
        of_guest = ((self.balloon.stats().swapped_in or 0) - self.guest_before) // PAGE
        return seen._replace(swapped_in=max(seen.swapped_in, of_guest))

    # --- what is said ---

    def line(self, state: State) -> str:
        out, back = self.traffic.swapped_out, self.traffic.swapped_in
        return (
            f"{self.machine.name}: {sizes(state.target, self.whole)};"
            f" swapped out {format_size(PAGE * out)}, in {format_size(PAGE * back)}"
        )

    def state(self) -> str:
        machine = self.machine
        name, qmp = machine.name, f"--qmp={machine.qmp}"
        return (
            f"{name} runs on with {sizes(self.target, self.whole)};"
            f" {typed(machine.instance, 'park', name, qmp)} goes on,"
            f" {typed(machine.instance, 'unpark', name)} gives all back"
        )

    def complaint(self) -> str:
        return f"stopped before the floor: {self.ending}. {self.state()}"


def patiently(ask: Callable[[], T], interrupts: Interrupts) -> T:
    """UnreachableError once there was no server for long: its guest stands still then."""
    deadline = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            return ask()
        except UnreachableError:
            if time.monotonic() > deadline:
                raise
        interrupts.check()
        time.sleep(LOOK_SECONDS)


def print_plan(invocation: Invocation, machine: Machine, plan: Plan) -> None:
    if invocation.json:
        print_json({"name": machine.name, "devices": machine.devices, **plan.as_json()})
        return
    if plan.has <= plan.floor + SLACK:
        click.echo(f"{machine.name} has no more than that already: {sizes(plan.has, plan.whole)}")
        return
    step = format_size(plan.rules.step)
    click.echo(
        f"{machine.name} would be left with {sizes(plan.floor, plan.whole)}, in steps of {step}"
    )
    click.echo(
        f"its guest may swap out {format_size(plan.swap)}; there is room for"
        f" {format_size(plan.room)}"
    )


def print_parked(invocation: Invocation, machine: Machine, parker: Parker) -> None:
    if invocation.json:
        print_json(
            {
                "name": machine.name,
                "devices": machine.devices,
                "whole": parker.whole,
                "left": parker.target,
                "complete": parker.ending is None,
                "reason": parker.ending,
                "resident": parker.now,
                "resident_before": parker.before,
            }
        )
        return
    click.echo(
        f"{machine.name} is parked, with {sizes(parker.target, parker.whole)}"
        f"{taken(parker.now, parker.before)}"
    )
    if holes_are_filled():
        click.echo(
            "note: this host's khugepaged fills such a machine's memory up again, bit by bit:"
            f" echo 0 >{FOLDER / MOST_MISSING}, as root and at each boot, keeps it from that"
        )
