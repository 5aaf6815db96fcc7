"""`sysctl`, `shrink` and `swapoff`: taking the host's memory back."""

import sys
from dataclasses import asdict

import click

from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.shrinking import check_complete, count, run_shrink
from preswapd.commandline import DEVICE, PAGES
from preswapd.control.protocol import VM_PRESWAP
from preswapd.errors import RefusedError, UsageError
from preswapd.units import parse_pages

# A request so recent means that somebody is still using the device.
RECENT_SECONDS = 10.0


@click.command("sysctl")
@click.option("-w", "--write", is_flag=True, help="Only accept an assignment, as sysctl(8) does.")
@click.argument("setting", metavar="vm.preswap[=N]")
@pass_invocation
def sysctl_command(invocation: Invocation, write: bool, setting: str) -> None:
    """Print how many pages are in tmem, or shrink to N of them.

    N counts pages, or is a size such as 64M. Shrinking moves pages to the disk file; guests go on
    meanwhile.

    \b
    Examples:
      preswapctl sysctl vm.preswap
      preswapctl sysctl -w vm.preswap=0
    """
    key, assigned, value = (part.strip() for part in setting.partition("="))
    if key != VM_PRESWAP:
        raise UsageError(f"unknown key {key!r}: the only one is {VM_PRESWAP}")
    if write and not assigned:
        raise UsageError(f"-w needs an assignment: {VM_PRESWAP}=N")
    instance = invocation.instances.only()
    if not assigned:
        print_setting(invocation, instance.client.preswap_pages())
        return
    try:
        pages = parse_pages(value)
    except ValueError as error:
        raise UsageError(f"{VM_PRESWAP}: {error}") from None
    report = run_shrink(instance.client, pages)
    print_setting(invocation, report.left)
    check_complete(report)


def print_setting(invocation: Invocation, pages: int) -> None:
    if invocation.json:
        print_json({VM_PRESWAP: pages})
    else:
        click.echo(f"{VM_PRESWAP} = {pages}")


@click.command("shrink")
@click.argument("n", type=PAGES)
@click.argument("dev", required=False, type=DEVICE)
@pass_invocation
def shrink_command(invocation: Invocation, n: int, dev: str | None) -> None:
    """Move pages from tmem to disk until N are left, in all devices or in DEV.

    N counts pages, or is a size such as 64M. Ctrl-C stops it between two writes; run it again to
    go on. Exit status 5: it stopped early.

    \b
    Examples:
      preswapctl shrink 0
      preswapctl shrink 512M swap0
    """
    instances = invocation.instances
    instance = instances.only() if dev is None else instances.having(dev)
    report = run_shrink(instance.client, n, dev)
    if invocation.json:
        print_json(asdict(report))
    else:
        click.echo(f"moved {count(report.moved)} to disk, {count(report.left)} left in tmem")
    check_complete(report)


@click.command("swapoff")
@click.argument("dev", type=DEVICE)
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def swapoff_command(invocation: Invocation, dev: str, yes: bool) -> None:
    """Drop all pages of DEV, in tmem and on disk, after the guest's own swapoff.

    The swap header stays, so that the guest's next swapon finds the device.

    \b
    Example:
      preswapctl swapoff swap0 --yes
    """
    client = invocation.instances.having(dev).client
    warning = in_use(client.device(dev))
    if warning:
        click.echo(f"preswapctl: {dev}: {warning}", err=True)
    if not yes:
        confirm(f"Throw away all pages of {dev}?")
    report = client.swapoff(dev)
    if invocation.json:
        print_json(asdict(report))
    else:
        click.echo(f"dropped {count(report.pages)} from tmem, {count(report.disk_pages)} from disk")


def in_use(device: dict[str, object]) -> str | None:
    seconds = device.get("seconds_since_io")
    if isinstance(seconds, int | float) and seconds < RECENT_SECONDS:
        return f"it had I/O {seconds:.1f} s ago: is it still in use as swap?"
    return None


def confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise RefusedError("this throws data away and there is no terminal to ask at: give --yes")
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        # Ctrl-C, or the end of the input.
        click.echo(err=True)
        agreed = False
    if not agreed:
        raise RefusedError("nothing was changed")
