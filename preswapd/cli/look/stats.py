"""`list` and `stats`: what is there and what happened."""

from typing import Any

import click

from preswapd.api.client import Client
from preswapd.cli.instances import Instance, Instances, ask_all, complain
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.look.columns import (
    DEVICE_COLUMNS,
    DEVICE_DEFAULT,
    DEVICE_RATES,
    DEVICE_WATCH,
    POOL_COLUMNS,
    POOL_DEFAULT,
    POOL_RATES,
    POOL_WATCH,
)
from preswapd.cli.look.rows import Moment, Subject, devices_of, pool_of, with_device
from preswapd.cli.look.sampling import SECONDS, WATCH_SECONDS, print_json_lines, print_rows
from preswapd.cli.look.table import (
    Style,
    Table,
    TableCommand,
    choose,
    short_time,
    table_options,
)
from preswapd.cli.look.watching import Find, Watch
from preswapd.cli.output import print_json
from preswapd.commandline import DEVICE
from preswapd.errors import UsageError
from preswapd.units import format_size

Json = dict[str, Any]

# Counters of bytes; the others are pages or events.
BYTES = {
    "size",
    "mem_limit",
    "mem_used_total",
    "mem_used_max",
    "orig_data_size",
    "compr_data_size",
    "metadata_size",
}


class ListCommand(TableCommand):
    tables = (("Columns", DEVICE_COLUMNS, DEVICE_DEFAULT),)


class StatsCommand(TableCommand):
    tables = (
        ("Columns", POOL_COLUMNS, POOL_DEFAULT),
        ("With --watch also", POOL_RATES, POOL_WATCH),
        ("With --watch and DEV besides those of list", DEVICE_RATES, DEVICE_WATCH),
    )


@click.command("list", cls=ListCommand)
@table_options
@pass_invocation
def list_command(
    invocation: Invocation, output: str | None, raw: bool, exact: bool, noheadings: bool
) -> None:
    """Show the devices, one row each.

    Sizes are the guest's: what its pages take before they are compressed. They add up:
    SIZE = USED + FREE, and USED = TMEM + DISK + LOST.

    \b
    Examples:
      preswapctl list
      preswapctl list -o +LOADS,HIT%
      preswapctl list --raw --noheadings --bytes -o NAME,USED
      preswapctl --instance vm1 --json list
    """
    style = Style(output, raw, exact, not noheadings)
    check_no_table(invocation.json, style)
    table = Table(choose(DEVICE_COLUMNS, DEVICE_DEFAULT, output), style)
    instances = invocation.instances.running()
    answers, errors = ask_all(instances, Client.stats)
    if invocation.json:
        print_together([device_list(stats) for stats in answers], len(instances))
    elif answers:
        rows = [row for stats in answers for row in devices_of(Moment.of(stats))]
        echo(table, rows)
    complain(errors)


def echo(table: Table, rows: list[Subject]) -> None:
    for line in table.lines(rows):
        click.echo(line)


def check_no_table(as_json: bool, style: Style) -> None:
    if as_json and not style.is_default:
        raise UsageError("JSON is no table: leave --output, --raw, --bytes and --noheadings out")


def device_list(stats: Json) -> Json:
    devices = [{"name": name, **device} for name, device in stats["devices"].items()]
    return {"instance": stats["instance"], "devices": devices}


def print_together(answers: list[Json], instances: int) -> None:
    """One instance's object as it is, if it answered; several as a list of those that did."""
    if instances > 1:
        print_json({"instances": answers})
    elif answers:
        print_json(answers[0])


@click.command("stats", cls=StatsCommand)
@click.argument("dev", required=False, type=DEVICE)
@table_options
@click.option(
    "-w",
    "--watch",
    type=WATCH_SECONDS,
    is_flag=False,
    flag_value="1",
    help="A row every so many seconds (1), with rates, until Ctrl-C.",
)
@click.option("--json-lines", is_flag=True, help="A JSON object a line, with the time.")
@click.option("--interval", type=SECONDS, help="Seconds between two of --json-lines. Default: 1.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after so many looks.")
@pass_invocation
def stats_command(
    invocation: Invocation,
    dev: str | None,
    output: str | None,
    raw: bool,
    exact: bool,
    noheadings: bool,
    watch: float | None,
    json_lines: bool,
    interval: float | None,
    count: int | None,
) -> None:
    """Show all counters, or those of the pool and the device DEV.

    Sizes are in bytes; everything else counts pages or events since the server's start. With
    --output, --watch or another option of tables: a row for each pool, or with DEV the device's.

    \b
    Examples:
      preswapctl stats
      preswapctl stats -o +RAW,PACKED
      preswapctl stats --watch 5
      preswapctl stats swap0 --watch
      preswapctl stats --json-lines --interval 0.5 --count 120 > run.jsonl
      preswapctl --json stats swap0 | jq .devices.swap0.preswap_pages
    """
    style = Style(output, raw, exact, not noheadings)
    check_one_way(invocation.json, style, watch, json_lines, interval, count)
    if json_lines:
        print_json_lines(Watch(finder(invocation.instances, dev)), dev, interval or 1.0, count)
    elif watch is not None:
        if dev is None:
            columns = choose((*POOL_RATES, *POOL_COLUMNS), POOL_WATCH, output)
        else:
            columns = choose((*DEVICE_RATES, *DEVICE_COLUMNS), DEVICE_WATCH, output)
        look = Watch(finder(invocation.instances, dev))
        print_rows(look, dev, Table(columns, style, grows=True), watch, count)
    else:
        show_once(invocation, dev, style)


def check_one_way(
    as_json: bool,
    style: Style,
    watch: float | None,
    json_lines: bool,
    interval: float | None,
    count: int | None,
) -> None:
    """Options that contradict each other, or that would be without effect."""
    check_no_table(as_json or json_lines, style)
    if watch is not None and (as_json or json_lines):
        raise UsageError("--watch prints a table: for programs there is --json-lines")
    if interval is not None and not json_lines:
        raise UsageError("--interval belongs to --json-lines; a table takes --watch SECONDS")
    if count is not None and watch is None and not json_lines:
        raise UsageError("--count needs --watch or --json-lines")


def finder(instances: Instances, dev: str | None) -> Find:
    """Of all instances those that run at each look; of a device its own for ever."""
    if dev is None:
        return instances.running
    owner = [instances.having(dev)]
    return lambda: owner


def show_once(invocation: Invocation, dev: str | None, style: Style) -> None:
    if dev is None:
        columns = choose(POOL_COLUMNS, POOL_DEFAULT, style.output)
    else:
        columns = choose(DEVICE_COLUMNS, DEVICE_DEFAULT, style.output)
    instances = chosen(invocation.instances, dev)
    answers, errors = ask_all(instances, Client.stats)
    if dev is not None:
        answers = [with_device(stats, dev) for stats in answers]
    if invocation.json:
        print_together(answers, len(instances))
    elif style.is_default:
        for stats in answers:
            print_stats(stats)
    elif answers:
        moments = [Moment.of(stats) for stats in answers]
        if dev is None:
            rows = [pool_of(moment) for moment in moments]
        else:
            rows = [row for moment in moments for row in devices_of(moment)]
        echo(Table(columns, style), rows)
    complain(errors)


def chosen(instances: Instances, dev: str | None) -> list[Instance]:
    return instances.running() if dev is None else [instances.having(dev)]


def print_stats(stats: Json) -> None:
    click.echo(f"instance {stats['instance']}, preswapd {stats['version']}")
    print_counters("tmem", stats["tmem"])
    for name, device in stats["devices"].items():
        print_counters(f"device {name}", device)


def print_counters(title: str, counters: Json) -> None:
    click.echo(f"\n{title}")
    width = max(map(len, counters))
    for name, value in counters.items():
        if name == "latency":
            print_latency(value, width)
            continue
        size = f"  {format_size(value)}" if name in BYTES else ""
        click.echo(f"  {name:{width}}  {value!s:>14}{size}")


def print_latency(latency: Json, width: int) -> None:
    """Quantiles; the whole histogram is for programs."""
    for operation, found in latency.items():
        for quantile in ("p50", "p99", "p999"):
            text = "-" if found[quantile] is None else short_time(found[quantile])
            click.echo(f"  {f'{operation}_{quantile}':{width}}  {text:>14}")
