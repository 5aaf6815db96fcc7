# SPDX-License-Identifier: BSD-3-Clause
"""`sysctl`, `freeze` and `thaw`: named values of a running server, in sysctl(8)'s manner."""

from collections.abc import Iterator
from textwrap import wrap
from typing import NamedTuple

import click

from preswapd.api.client import Client
from preswapd.api.settings import DEFAULT, FROZEN, PREFIX, VM_PRESWAP, sysctl_rows
from preswapd.api.wire import NotKeptError
from preswapd.cli.instances import RunningInstance, ask_all, complain, names, those
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.following import check_complete, run_shrink, set_and_fit
from preswapd.errors import PartialError, UsageError
from preswapd.units import parse_pages

# What a terminal of 80 columns has left beside click's margin.
LISTING_WIDTH = 76
END_OF_FROZEN = f".{FROZEN.parameter}"

Value = int | str


class Assignment(NamedTuple):
    """`key` or `key=value`."""

    key: str
    value: str | None

    @classmethod
    def parse(cls, text: str) -> "Assignment":
        key, assigned, value = (part.strip() for part in text.partition("="))
        return cls(key, value if assigned else None)


def listing() -> str:
    """Every key with what it means, in lines of a terminal."""
    rows = [
        ("vm.preswap[.DEV]", "pages in tmem; set it to move pages to disk until that many are left")
    ]
    rows += [(key, setting.meaning) for key, setting in sysctl_rows()]
    width = max(len(key) for key, _ in rows) + 2
    lines = []
    for key, meaning in rows:
        first, *others = wrap(meaning, LISTING_WIDTH - width)
        lines += [f"{key:{width}}{first}", *(" " * width + text for text in others)]
    return "\n".join(lines)


HELP = f"""Print or set named values of a running server.

\b
{listing()}

vm.preswap and quota take pages, or sizes such as 64M. What is set stays set when the
server restarts, until the host reboots; "{DEFAULT}" is the configured value.

\b
Examples:
  preswapctl sysctl vm.preswap
  preswapctl sysctl -w vm.preswap=0
  preswapctl sysctl -a
  preswapctl sysctl preswap.vm1.pool_limit=1G preswap.vm1.swap0.quota=256M
"""


@click.command("sysctl", help=HELP)
@click.option("-a", "--all", "show_all", is_flag=True, help="Print all keys.")
@click.option("-n", "--values", is_flag=True, help="Print values without their keys.")
@click.option("-w", "--write", is_flag=True, help="Only accept assignments, as sysctl(8) does.")
@click.argument("settings", metavar="[KEY[=VALUE]]...", nargs=-1)
@pass_invocation
def sysctl_command(
    invocation: Invocation, show_all: bool, values: bool, write: bool, settings: tuple[str, ...]
) -> None:
    assignments = [Assignment.parse(text) for text in settings]
    if not show_all and not assignments:
        raise UsageError("name a key, or -a for all")
    if show_all and (assignments or write):
        raise UsageError("-a shows all keys: give neither keys nor -w with it")
    for key, value in assignments:
        if not key:
            raise UsageError("an assignment is one word: KEY=VALUE")
        if write and value is None:
            raise UsageError(f"-w needs an assignment: {key}=VALUE")
    shown = Shown(invocation.json, values)
    if show_all:
        show_everything(invocation, shown)
    else:
        changes = [Change.of(invocation, assignment) for assignment in assignments]
        not_kept: list[str] = []
        try:
            for change in changes:
                try:
                    shown.add(change.key, change.apply())
                except NotKeptError as error:
                    shown.add(change.key, error.value)
                    not_kept.append(str(error))
        finally:
            # What was set before one of them failed is set.
            shown.end()
        if not_kept:
            raise PartialError("; ".join(not_kept))


class Shown:
    """What has been read or set: a line each at once, or one JSON object."""

    def __init__(self, as_json: bool, only_values: bool) -> None:
        self.as_json = as_json
        self.only_values = only_values
        self.values: dict[str, Value] = {}

    def add(self, key: str, value: Value) -> None:
        self.values[key] = value
        if not self.as_json:
            click.echo(value if self.only_values else f"{key} = {value}")

    def end(self) -> None:
        if self.as_json and self.values:
            print_json(self.values)


def show_everything(invocation: Invocation, shown: Shown) -> None:
    """Of all instances: vm.preswap means each of them and vm.preswap.DEV each that has such a
    device; both are sums."""
    together: dict[str, Value] = {}
    answers, errors = ask_all(invocation.instances.running(), Client.sysctl)
    for found in answers:
        for key, value in found.items():
            is_sum = key in together and not key.startswith(PREFIX)
            together[key] = int(together[key]) + int(value) if is_sum else value
    for key, value in together.items():
        shown.add(key, value)
    shown.end()
    complain(errors)


class Change(NamedTuple):
    """An assignment whose key is known, and whose value may be one: all are looked at before the
    first is made.  Without a value the key is only read."""

    instance: RunningInstance
    key: str
    value: str | None
    pages: int | None  # of a shrink

    @classmethod
    def of(cls, invocation: Invocation, assignment: Assignment) -> "Change":
        key, value = assignment
        instance = owner(invocation, key)
        known(instance, key)
        if value is None or key.startswith(PREFIX):
            return cls(instance, key, value, None)
        try:
            return cls(instance, key, value, parse_pages(value))
        except ValueError as error:
            raise UsageError(f"{key}: {error}") from None

    def apply(self) -> Value:
        if self.value is None:
            return known(self.instance, self.key)
        client = self.instance.client
        if self.pages is not None:
            report = run_shrink(client, self.pages, device_of(self.key))
            check_complete(report)
            return report.left
        return set_and_fit(client, self.key, self.value)


def owner(invocation: Invocation, key: str) -> RunningInstance:
    """The instance that the key is of: it names it, or its device, or there is only one."""
    if key.startswith(PREFIX) and not invocation.instances.named:
        found = invocation.instances.running()
        owners = those(found, lambda client: key in client.sysctl())
        if len(owners) == 1:
            return owners[0]
        if owners:  # "vm1" has a device "a.b", and "vm1.a" a device "b"
            raise UsageError(
                f"several instances have {key!r} ({names(owners)}): name one with --instance"
            )
        if len(found) > 1:
            raise UsageError(f"unknown key {key!r}: `preswapctl sysctl -a` lists them")
    device = device_of(key)
    return invocation.instances.only() if device is None else invocation.instances.having(device)


def device_of(key: str) -> str | None:
    """DEV of vm.preswap.DEV."""
    return key.removeprefix(f"{VM_PRESWAP}.") if key.startswith(f"{VM_PRESWAP}.") else None


def known(instance: RunningInstance, key: str) -> Value:
    """UsageError for one that there is not, or no longer."""
    found: dict[str, Value] = instance.client.sysctl()
    if key not in found:
        raise UsageError(f"unknown key {key!r}: the choices are {', '.join(found)}")
    return found[key]


@click.command("freeze")
@pass_invocation
def freeze_command(invocation: Invocation) -> None:
    """Let no new pages into tmem: they go to disk until thaw.

    Pages that are in tmem stay there, and a page that replaces one of them is still taken.

    \b
    Example:
      preswapctl --instance vm1 freeze
    """
    set_frozen(invocation, True)


@click.command("thaw")
@pass_invocation
def thaw_command(invocation: Invocation) -> None:
    """Let new pages into tmem again.

    \b
    Example:
      preswapctl --instance vm1 thaw
    """
    set_frozen(invocation, False)


def set_frozen(invocation: Invocation, frozen: bool) -> None:
    client = invocation.instances.only().client
    (key,) = frozen_keys(client.sysctl())
    not_kept = None
    try:
        value = client.set(key, str(int(frozen)))
    except NotKeptError as error:
        value, not_kept = error.value, error
    name = key.removeprefix(PREFIX).removesuffix(END_OF_FROZEN)
    if invocation.json:
        print_json({key: value})
    else:
        click.echo(
            f"{name} is frozen: new pages go to disk"
            if frozen
            else f"{name} is thawed: tmem takes new pages"
        )
    if not_kept:
        raise not_kept


def frozen_keys(settings: dict[str, Value]) -> Iterator[str]:
    return (key for key in settings if key.startswith(PREFIX) and key.endswith(END_OF_FROZEN))
