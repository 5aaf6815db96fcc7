# SPDX-License-Identifier: BSD-3-Clause
"""`governor`: who may take how much memory, why, and what was decided last."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click

from preswapd.api.figures import Figure
from preswapd.api.governor import INSTANCE_FIGURES, GovernorStatus, governor
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.look.columns import INSTANCE
from preswapd.cli.look.rows import Subject
from preswapd.cli.look.table import Column, Kind, Style, TableCommand, TextTable, choose
from preswapd.cli.output import print_json
from preswapd.commandline import DIRECTORY
from preswapd.errors import UsageError
from preswapd.paths import GOVERNOR, config_file, governor_runtime_dir
from preswapd.units import format_size

# What a terminal shows without --explain, which tells all that the governor remembers.
SHOWN_DECISIONS = 3


def of_instance(name: str, key: str, kind: Kind = Kind.SIZE) -> Column:
    figure: Figure = INSTANCE_FIGURES[key]
    return Column(name, figure.meaning, kind, lambda row: row.figures[key])


GOVERNOR_COLUMNS = (
    INSTANCE,
    of_instance("LIMIT", "limit"),
    of_instance("USED", "used"),
    of_instance("IDLE", "idle"),
    of_instance("TODISK", "excess"),
    of_instance("FLOOR", "floor"),
    of_instance("CAP", "cap"),
    of_instance("WEIGHT", "weight", Kind.COUNT),
)
GOVERNOR_DEFAULT = tuple(column.name for column in GOVERNOR_COLUMNS)


class GovernorCommand(TableCommand):
    tables = (("Columns", GOVERNOR_COLUMNS, GOVERNOR_DEFAULT),)


@click.command("governor", cls=GovernorCommand)
@click.option("--explain", is_flag=True, help="Say in sentences who may take how much, and why.")
@click.option(
    "--at",
    type=DIRECTORY,
    help="The governor's runtime directory. Default: /run/preswapd-governor for root.",
)
@pass_invocation
def governor_command(invocation: Invocation, explain: bool, at: Path | None) -> None:
    """Show what `preswapd govern` does: who may take how much memory, and what it decided last.

    With --explain in sentences. With --json it is what the governor's socket answers to
    GET /v1/governor.

    \b
    Examples:
      preswapctl governor
      preswapctl governor --explain
    """
    if invocation.instances.named:
        raise UsageError("there is one governor for all instances: name none (--at names its own)")
    status = governor(at or governor_runtime_dir()).status()
    if invocation.json:
        print_json(status)
        return
    for line in explained(status) if explain else short(status):
        click.echo(line)


def short(status: GovernorStatus) -> Iterator[str]:
    yield of_host(status)
    columns = choose(GOVERNOR_COLUMNS, GOVERNOR_DEFAULT, None)
    yield from TextTable(columns, Style()).lines(
        Subject(name, name, 0.0, {**figures}) for name, figures in status["instances"].items()
    )
    yield from absent(status)
    for made in status["decisions"][-SHOWN_DECISIONS:]:
        yield f"{clock(made['time'])}  {made['sentence']}"


def of_host(status: GovernorStatus) -> str:
    dry = "dry run, nothing is set: " if status["dry_run"] else ""
    pressure = status["pressure"]
    waits = "" if pressure is None else f", programs wait for memory {pressure:.1f} % of the time"
    return (
        f"{dry}{format_size(status['available'])} available, reserve"
        f" {format_size(status['reserve'])}{waits}; pools take {format_size(status['used'])}, and"
        f" may take {format_size(status['total'])}"
    )


def explained(status: GovernorStatus) -> Iterator[str]:
    available, reserve = status["available"], status["reserve"]
    used, room, total = status["used"], status["room"], status["total"]
    files = ", ".join(status["files"]) or f"{config_file(GOVERNOR)}, which is not there yet"
    yield (
        "A pool is memory of this host with pages that guests have swapped out. What has no room in"
        " it goes to the guest's disk file: nothing is lost."
    )
    yield (
        f"{format_size(available)} of the host's memory are available to other programs; the"
        f" reserve, below which the pools give back, is {format_size(reserve)}."
    )
    if available >= reserve:
        yield (
            f"The pools take {format_size(used)}. With the {format_size(available - reserve)}"
            f" available above the reserve there is room for {format_size(room)}, and all together"
            f" they may take {format_size(total)}."
        )
    else:
        yield (
            f"The host is short of {format_size(reserve - available)}: of the {format_size(used)}"
            f" that the pools take, {format_size(room)} may stay."
        )
    yield (
        "Where other programs take more than that, the pools' limits are lowered at once by all"
        " that is missing. Limits grow again an eighth of the way at a time, after half a minute or"
        " more in which nothing was missing."
    )
    yield ""
    for name, figures in status["instances"].items():
        limit = figures["limit"]
        may = "has no limit of the governor" if limit is None else f"may take {format_size(limit)}"
        yield f"{name} {may}: {figures['why']}."
    yield from absent(status)
    if status["decisions"]:
        yield ""
        yield "What was done, the newest last:"
    for made in status["decisions"]:
        yield f"{clock(made['time'])}  {made['sentence']}"
    yield ""
    yield (
        f"The reserve, and weight, floor and cap of an instance: {files}. Limits are whole MiB."
        " What is changed there counts from systemctl restart preswapd-governor on."
    )


def absent(status: GovernorStatus) -> Iterator[str]:
    for name, reason in status["absent"].items():
        yield f"{name} is not governed: {reason}"


def clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
