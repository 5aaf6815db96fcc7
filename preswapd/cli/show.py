"""`list` and `stats`: what is there and what happened."""

from typing import Any

import click

from preswapd.cli.instances import Instance, Instances, ask_all
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json, print_table
from preswapd.commandline import DEVICE
from preswapd.control.client import Client
from preswapd.errors import UnreachableError, UsageError
from preswapd.units import PAGE_SIZE, format_size

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


@click.command("list")
@pass_invocation
def list_command(invocation: Invocation) -> None:
    """Show the devices, one row each.

    TMEM is what lies in compressed memory and DISK what lies in the disk file, both as the guest
    counts it.

    \b
    Examples:
      preswapctl list
      preswapctl --instance vm1 --json list
    """
    instances = invocation.instances.running()
    answers, errors = ask_all(instances, Client.stats)
    if invocation.json:
        print_json(together([device_list(stats) for stats in answers], len(instances)))
    elif answers:
        rows = [
            row(stats["instance"], name, device)
            for stats in answers
            for name, device in stats["devices"].items()
        ]
        print_table(("NAME", "INSTANCE", "SIZE", "TMEM", "DISK", "CLIENTS", "COMPRESS"), rows)
    complain(errors)


def device_list(stats: Json) -> Json:
    devices = [{"name": name, **device} for name, device in stats["devices"].items()]
    return {"instance": stats["instance"], "devices": devices}


def row(instance: str, name: str, device: Json) -> tuple[str, ...]:
    return (
        name,
        instance,
        format_size(device["size"]),
        format_size(device["preswap_pages"] * PAGE_SIZE),
        format_size(device["disk_pages"] * PAGE_SIZE),
        str(device["connections"]),
        str(device.get("compress", "")),
    )


def together(answers: list[Json], instances: int) -> Json:
    """One instance's object as it is, several as a list."""
    return answers[0] if instances == 1 else {"instances": answers}


def complain(errors: list[UnreachableError]) -> None:
    """What is known was shown; that it is not all is said in the end, and by the exit status."""
    if errors:
        raise UnreachableError("; ".join(map(str, errors)))


@click.command("stats")
@click.argument("dev", required=False, type=DEVICE)
@pass_invocation
def stats_command(invocation: Invocation, dev: str | None) -> None:
    """Show all counters, or those of the pool and the device DEV.

    Sizes are in bytes; everything else counts pages or events since the server's start.

    \b
    Examples:
      preswapctl stats
      preswapctl --json stats swap0 | jq .devices.swap0.preswap_pages
    """
    instances = chosen(invocation.instances, dev)
    answers, errors = ask_all(instances, Client.stats)
    if dev is not None:
        answers = [with_device(stats, dev) for stats in answers]
    if invocation.json:
        print_json(together(answers, len(instances)))
    else:
        for stats in answers:
            print_stats(stats)
    complain(errors)


def chosen(instances: Instances, dev: str | None) -> list[Instance]:
    return instances.running() if dev is None else [instances.having(dev)]


def with_device(stats: Json, dev: str) -> Json:
    if dev not in stats["devices"]:
        raise UsageError(f"there is no device {dev!r} in {stats['instance']}")
    return {**stats, "devices": {dev: stats["devices"][dev]}}


def print_stats(stats: Json) -> None:
    click.echo(f"instance {stats['instance']}, preswapd {stats['version']}")
    print_counters("tmem", stats["tmem"])
    for name, device in stats["devices"].items():
        print_counters(f"device {name}", device)


def print_counters(title: str, counters: Json) -> None:
    click.echo(f"\n{title}")
    width = max(map(len, counters))
    for name, value in counters.items():
        size = f"  {format_size(value)}" if name in BYTES else ""
        click.echo(f"  {name:{width}}  {value!s:>14}{size}")
