# SPDX-License-Identifier: BSD-3-Clause
"""`sysctl`, `freeze` and `thaw`: named values of a running server, in sysctl(8)'s manner."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from preswapd.api.client import Client
from preswapd.api.messages import is_an_image
from preswapd.api.settings import DEFAULT, FROZEN, PREFIX, VM_PRESWAP, VM_REMOTE, sysctl_rows
from preswapd.api.wire import NotKeptError
from preswapd.cli.instances import (
    Instances,
    RunningInstance,
    UnknownError,
    all_images,
    ask_all,
    complain,
    names,
    those,
)
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_answers, print_json
from preswapd.cli.steer.assignments import Assignment, of_files
from preswapd.cli.steer.following import check_complete, run_shrink, set_and_fit
from preswapd.commandline import FILE, SYSCTL_KEY, Reader
from preswapd.errors import PartialError, PreswapError, UnreachableError, UsageError
from preswapd.units import parse_pages

# What a terminal of 80 columns has left beside click's margin.
LISTING_WIDTH = 76
END_OF_FROZEN = f".{FROZEN.parameter}"

Value = int | str


def listing() -> str:
    """Every key with what it means, in lines of a terminal."""
    rows = [
        ("vm.preswap[.DEV]", "pages in tmem; set it to move pages to disk until that many are left")
    ]
    rows += [(key, setting.meaning) for key, setting in sysctl_rows()]
    width = max(len(key) for key, _ in rows) + 2
    lines = []
    for key, meaning in rows:
        first, *others = wrap(meaning, LISTING_WIDTH - width, break_on_hyphens=False)
        lines += [f"{key:{width}}{first}", *(" " * width + text for text in others)]
    return "\n".join(lines)


class KeyOrFile(Reader[str]):
    """Behind -p it is one more file."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        kind = FILE if ctx.params.get("files") else SYSCTL_KEY
        return kind.shell_complete(ctx, param, incomplete)


HELP = f"""Print or set named values of a running server.

\b
{listing()}

vm.preswap and quota take pages, or sizes such as 64M; writeback_idle and recompress_after
take seconds, or durations such as 30m. What is set stays set when the server restarts,
until the host reboots; "{DEFAULT}" is the configured value. What is to stay for good belongs in
the configuration of `preswapd serve`.

A FILE has a line KEY = VALUE for each, and comments that begin with # or ;. A line that begins
with - may fail. With -a and several instances each has its own part, which a line `# NAME` begins;
with --json it is {{"instances": [...]}} where no instance is named.

\b
Examples:
  preswapctl sysctl vm.preswap
  preswapctl sysctl -w vm.preswap=0
  preswapctl sysctl -a
  preswapctl sysctl preswap.vm1.pool_limit=1G preswap.vm1.swap0.quota=256M
  preswapctl sysctl preswap.vm1.writeback_idle=30m
  preswapctl sysctl -e -p /etc/preswapd/sysctl.conf
"""


@click.command("sysctl", help=HELP)
@click.option("-a", "--all", "show_all", is_flag=True, help="Print all keys.")
@click.option("-n", "--values", is_flag=True, help="Print values without their keys.")
@click.option("-w", "--write", is_flag=True, help="Only accept assignments, as sysctl(8) does.")
@click.option(
    "-p",
    "--load",
    "files",
    type=FILE,
    multiple=True,
    help="Set what FILE says, and further files after it; - is the standard input.",
)
@click.option("-e", "--ignore", is_flag=True, help="Pass over unknown keys.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print what was set.")
@click.argument("settings", metavar="[KEY[=VALUE]]...", nargs=-1, type=KeyOrFile("key", str))
@pass_invocation
def sysctl_command(
    invocation: Invocation,
    show_all: bool,
    values: bool,
    write: bool,
    files: tuple[Path, ...],
    ignore: bool,
    quiet: bool,
    settings: tuple[str, ...],
) -> None:
    shown = Shown(invocation.json, values, quiet)
    if show_all:
        if settings or write or files:
            raise UsageError("-a shows all keys: give neither keys nor -w nor -p with it")
        show_everything(invocation, shown)
        return
    if not settings and not files:
        raise UsageError("name a key, or -a for all")
    if files:
        # As sysctl(8) takes them: `-p FILE FILE`.
        assignments = list(of_files([*files, *map(Path, settings)]))
    else:
        assignments = [Assignment.parse(text) for text in settings]
    for key, value, *_ in assignments:
        if write and value is None:
            raise UsageError(f"-w needs an assignment: {key}=VALUE")
    changes = [
        change
        for assignment in assignments
        if (change := looked_up(invocation.instances, assignment, ignore))
    ]
    not_kept: list[str] = []
    try:
        for change in changes:
            try:
                change.carry_out(shown)
            except NotKeptError as error:
                shown.add(change.assignment.key, error.value, was_set=True)
                not_kept.append(str(error))
    finally:
        # What was set before one of them failed is set.
        shown.end()
    if not_kept:
        raise PartialError("; ".join(not_kept))


class Shown:
    """What has been read or set: a line each at once, or one JSON object."""

    def __init__(self, as_json: bool, only_values: bool, quiet: bool = False) -> None:
        self.as_json = as_json
        self.only_values = only_values
        self.quiet = quiet
        self.values: dict[str, Value] = {}

    def add(self, key: str, value: Value, *, was_set: bool = False) -> None:
        if was_set and self.quiet:
            return
        self.values[key] = value
        if not self.as_json:
            click.echo(value if self.only_values else f"{key} = {value}")

    def end(self) -> None:
        if self.as_json and self.values:
            print_json(self.values)


def show_everything(invocation: Invocation, shown: Shown) -> None:
    """Of each instance on its own: a key may be in several of them, and mean something else."""
    running = invocation.instances.running()
    answers, errors = ask_all(running, Client.sysctl)
    if invocation.json:
        named = invocation.instances.named
        parts = [{"instance": name_in(values), "sysctl": values} for values in answers]
        print_answers(answers if named else parts, named=named)
    else:
        for values in answers:
            if len(running) > 1 and not shown.only_values:
                click.echo(f"# {name_in(values)}")
            for key, value in values.items():
                shown.add(key, value)
    invocation.instances.warn_of_stopped()
    complain(errors)


def looked_up(
    instances: Instances, assignment: Assignment, ignore_unknown: bool
) -> "Change | None":
    """None for one that is to be passed over."""
    try:
        return Change.of(instances, assignment)
    except PreswapError as error:
        if assignment.may_fail or (ignore_unknown and isinstance(error, UnknownError)):
            return None
        raise assignment.placed(error) from None


class Change(NamedTuple):
    """An assignment whose key is known, and whose value may be one: all are looked at before the
    first is made.  Without a value the key is only read."""

    instance: RunningInstance
    assignment: Assignment
    pages: int | None  # of a shrink

    @classmethod
    def of(cls, instances: Instances, assignment: Assignment) -> "Change":
        key, value = assignment.key, assignment.value
        instance = owner(instances, key)
        known(instance, key)
        if value is None or key.startswith(PREFIX) or key == VM_REMOTE:
            return cls(instance, assignment, None)
        try:
            return cls(instance, assignment, parse_pages(value))
        except ValueError as error:
            raise UsageError(f"{key}: {error}") from None

    def carry_out(self, shown: Shown) -> None:
        key, is_set = self.assignment.key, self.assignment.value is not None
        try:
            shown.add(key, self.apply(), was_set=is_set)
        except NotKeptError:
            raise
        except PreswapError as error:
            if not self.assignment.may_fail:
                raise self.assignment.placed(error) from None

    def apply(self) -> Value:
        key, value = self.assignment.key, self.assignment.value
        if value is None:
            return known(self.instance, key)
        client = self.instance.client
        if self.pages is not None:
            report = run_shrink(client, self.pages, device_of(key))
            check_complete(report)
            return report.left
        return set_and_fit(client, key, value)


def owner(instances: Instances, key: str) -> RunningInstance:
    """The instance that the key is of: it names it, or its device, or there is only one."""
    device = device_of(key)
    if device is not None:
        return instances.having(device)
    if key in (VM_PRESWAP, VM_REMOTE) or instances.named:
        return instances.only()
    found = instances.running()
    owners = those(found, lambda client: key in client.sysctl())
    if len(owners) > 1:  # "vm1" has a device "a.b", and "vm1.a" a device "b"
        raise UsageError(
            f"several instances have {key!r} ({names(owners)}): name one with --instance"
        )
    for gone in () if owners else instances.stopped:
        if key.startswith(f"{PREFIX}{gone.name}."):
            raise UnreachableError(f"{key}: {gone.sentence}")
    if not owners and len(found) > 1:
        raise UnknownError(f"unknown key {key!r}: `preswapctl sysctl -a` lists them")
    return (owners or found)[0]


def device_of(key: str) -> str | None:
    """DEV of vm.preswap.DEV."""
    return key.removeprefix(f"{VM_PRESWAP}.") if key.startswith(f"{VM_PRESWAP}.") else None


def known(instance: RunningInstance, key: str) -> Value:
    """UnknownError for one that there is not, or no longer."""
    found: dict[str, Value] = instance.client.sysctl()
    if key not in found:
        check_no_image(instance, key)
        raise UnknownError(f"unknown key {key!r}: the choices are {', '.join(found)}")
    return found[key]


def check_no_image(instance: RunningInstance, key: str) -> None:
    """UnknownError for a key that would be an image's if it were a device."""
    stats = instance.client.stats()
    for image in all_images(stats):
        own = f"{PREFIX}{stats['instance']}.{image}."
        if key == f"{VM_PRESWAP}.{image}" or key.startswith(own):
            raise UnknownError(is_an_image(image, stats["instance"]))


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
    key, not_kept = frozen_key(client.sysctl()), None
    try:
        value = client.set(key, str(int(frozen)))
    except NotKeptError as error:
        value, not_kept = error.value, error
    name = name_of(key)
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


def name_in(settings: Mapping[str, Value]) -> str:
    """The instance that these are all of."""
    return name_of(frozen_key(settings))


def name_of(frozen: str) -> str:
    return frozen.removeprefix(PREFIX).removesuffix(END_OF_FROZEN)


def frozen_key(settings: Mapping[str, Value]) -> str:
    (key,) = (key for key in settings if key.startswith(PREFIX) and key.endswith(END_OF_FROZEN))
    return key
