# SPDX-License-Identifier: BSD-3-Clause
"""`stats`: every figure, or a table of them, once or again and again."""

from collections.abc import Mapping
from functools import partial

import click

from preswapd.api.client import Client
from preswapd.api.figures import BYTES, DEVICE, IMAGE, REMOTE, TMEM, Figure, Latency, Statistics
from preswapd.cli.instances import Instances, RunningInstance, ask_all, complain
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
from preswapd.cli.look.rows import Figures, Moment, devices_of, pool_of, with_device
from preswapd.cli.look.sampling import print_json_lines, print_rows
from preswapd.cli.look.table import (
    NONE,
    Columns,
    Style,
    TableCommand,
    TextTable,
    check_style,
    choose,
    short_time,
    table_options,
)
from preswapd.cli.look.watching import Find, Watch
from preswapd.cli.output import print_answers
from preswapd.commandline import DEVICE as DEVICE_NAME
from preswapd.commandline import SECONDS, Reader, parse_seconds
from preswapd.errors import UsageError
from preswapd.units import format_size

# Its value may be left out, so that a device behind it is taken for one.
WATCH_SECONDS = Reader(
    "seconds", partial(parse_seconds, hint=" (a device must come before --watch)")
)


class StatsCommand(TableCommand):
    tables = (
        ("Columns", POOL_COLUMNS, POOL_DEFAULT),
        ("With --watch also", POOL_RATES, POOL_WATCH),
        ("With --watch and DEV besides those of list", DEVICE_RATES, DEVICE_WATCH),
    )

    def columns(self, context: click.Context) -> Columns:
        # Where the value of the last option is still to come, click has taken no argument yet.
        has_device = context.params.get("dev") is not None or bool(context.args)
        known: Columns = DEVICE_COLUMNS if has_device else POOL_COLUMNS
        rates: Columns = DEVICE_RATES if has_device else POOL_RATES
        return known if context.params.get("watch") is None else (*rates, *known)


@click.command("stats", cls=StatsCommand)
@click.argument("dev", required=False, type=DEVICE_NAME)
@table_options
@click.option(
    "-w",
    "--watch",
    type=WATCH_SECONDS,
    is_flag=False,
    flag_value="1",
    help="Show a row with rates every SECONDS (1) until Ctrl-C.",
)
@click.option(
    "--json-lines",
    is_flag=True,
    help="Print JSON repeatedly, one object a line, with the time.",
)
@click.option("--interval", type=SECONDS, help="Seconds between two JSON lines. Default: 1.")
@click.option(
    "--count",
    type=click.IntRange(1),
    metavar="N",
    help="End --watch or --json-lines after N samples.",
)
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
    """Show all figures, or those of the pool and the device DEV.

    Sizes are in bytes, everything else in pages or events; counters run from the server's start.
    The manual page says what each of them means. With --output, --watch or another option of
    tables there is a row for each pool, or with DEV the device's. With --json it is
    {"instances": [...]} where no instance is named.

    \b
    Examples:
      preswapctl stats
      preswapctl stats -o +RAW,PACKED
      preswapctl stats --watch 5
      preswapctl stats swap0 --watch
      preswapctl stats --json-lines --interval 0.5 --count 120 > run.jsonl
      preswapctl --instance vm1 --json stats | jq .devices.swap0.preswap_pages
    """
    style = Style(output, raw, exact, not noheadings)
    check_one_way(invocation.json, style, watch, json_lines, interval, count)
    if dev is None and (json_lines or watch is not None):
        invocation.instances.warn_of_stopped()
    if json_lines:
        print_json_lines(Watch(finder(invocation.instances, dev)), dev, interval or 1.0, count)
    elif watch is not None:
        if dev is None:
            columns = choose((*POOL_RATES, *POOL_COLUMNS), POOL_WATCH, output)
        else:
            columns = choose((*DEVICE_RATES, *DEVICE_COLUMNS), DEVICE_WATCH, output)
        look = Watch(finder(invocation.instances, dev))
        print_rows(look, dev, TextTable(columns, style, grows=True), watch, count)
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
    """UsageError for options that contradict each other, or that would have no effect."""
    check_style(style, as_json=as_json or json_lines)
    if watch is not None and (as_json or json_lines):
        raise UsageError("--watch prints a table: use --json-lines for programs")
    if interval is not None and not json_lines:
        raise UsageError("--interval is for --json-lines; for a table use --watch SECONDS")
    if count is not None and watch is None and not json_lines:
        raise UsageError("--count needs --watch or --json-lines")


def finder(instances: Instances, dev: str | None) -> Find:
    """All instances that run at the time of a look; for a device only the one that has it."""
    if dev is None:
        return instances.running
    owner = [instances.having(dev)]
    return lambda: owner


def show_once(invocation: Invocation, dev: str | None, style: Style) -> None:
    if dev is None:
        columns = choose(POOL_COLUMNS, POOL_DEFAULT, style.output)
    else:
        columns = choose(DEVICE_COLUMNS, DEVICE_DEFAULT, style.output)
    answers, errors = ask_all(chosen(invocation.instances, dev), Client.stats)
    if dev is not None:
        answers = [with_device(stats, dev) for stats in answers]
    if invocation.json:
        print_answers(answers, named=invocation.instances.named)
    elif style.is_default:
        for stats in answers:
            print_stats(stats)
    elif answers:
        moments = [Moment.of(stats) for stats in answers]
        if dev is None:
            rows = [pool_of(moment) for moment in moments]
        else:
            rows = [row for moment in moments for row in devices_of(moment)]
        TextTable(columns, style).print(rows)
    if dev is None:
        invocation.instances.warn_of_stopped()
    complain(errors)


def chosen(instances: Instances, dev: str | None) -> list[RunningInstance]:
    return instances.running() if dev is None else [instances.having(dev)]


def print_stats(stats: Statistics) -> None:
    click.echo(f"instance {stats['instance']}, preswapd {stats['version']}")
    print_figures("tmem", stats["tmem"], TMEM)
    for name, figures in stats["devices"].items():
        print_figures(f"device {name}", figures, DEVICE)
    for name, image in stats.get("images", {}).items():
        print_figures(f"image {name}", image, IMAGE)
    if "remote" in stats:
        print_figures("remote tier", stats["remote"], REMOTE)


def print_figures(title: str, figures: Figures, known: Mapping[str, Figure]) -> None:
    """All there are, also those of a newer server; a size in bytes and in short."""
    click.echo(f"\n{title}")
    width = max(map(len, figures))
    for key, value in figures.items():
        if key == "latency":
            print_latency(value, width)
            continue
        is_size = value is not None and key in known and known[key].unit == BYTES
        size = f"  {format_size(value)}" if is_size else ""
        click.echo(f"  {key:{width}}  {NONE if value is None else value!s:>14}{size}")


def print_latency(latency: Mapping[str, Latency], width: int) -> None:
    """Quantiles; the whole histogram is for programs."""
    for operation, found in latency.items():
        quantiles = {"p50": found["p50"], "p99": found["p99"], "p999": found["p999"]}
        for quantile, seconds in quantiles.items():
            text = "-" if seconds is None else short_time(seconds)
            click.echo(f"  {f'{operation}_{quantile}':{width}}  {text:>14}")
