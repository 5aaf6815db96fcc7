"""`shrink` and `swapoff`: taking the host's memory back."""

import sys
from dataclasses import asdict

import click

from preswapd.api.messages import ShrinkResult, ShrinkStatus
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.in_use import in_use
from preswapd.cli.steer.shrinking import ShrinkPlan, check_complete, plan_shrink, run_shrink
from preswapd.commandline import DEVICE, PAGES
from preswapd.errors import RefusedError, UsageError
from preswapd.units import format_pages, format_size


@click.command("shrink")
@click.argument("n", type=PAGES, required=False)
@click.argument("dev", required=False, type=DEVICE)
@click.option("--wait/--no-wait", default=True, help="Wait for its end. Default: --wait.")
@click.option("--dry-run", is_flag=True, help="Only say what would move.")
@click.option("--status", "other", flag_value="status", help="Tell how far one under way is.")
@click.option("--stop", "other", flag_value="stop", help="Stop the one that is under way.")
@pass_invocation
def shrink_command(
    invocation: Invocation,
    n: int | None,
    dev: str | None,
    wait: bool,
    dry_run: bool,
    other: str | None,
) -> None:
    """Move pages from tmem to disk until N are left, in all devices or in DEV.

    N counts pages, or is a size such as 64M. Guests go on meanwhile. Ctrl-C or --stop end it
    between two writes, and what has moved has moved: run it again to go on. Exit status 5: it
    stopped early.

    \b
    Examples:
      preswapctl shrink 0
      preswapctl shrink 512M swap0 --dry-run
      preswapctl shrink 0 --no-wait; preswapctl shrink --status
    """
    if other is not None:
        if n is not None or dry_run or not wait:
            raise UsageError(f"--{other} takes neither N nor other options")
        client = invocation.instances.only().client
        stops = other == "stop"
        print_status(invocation, client.stop_shrink() if stops else client.shrink_status())
        return
    if n is None:
        raise UsageError("N is missing: to how many pages, or to what size?")
    instances = invocation.instances
    instance = instances.only() if dev is None else instances.having(dev)
    if dry_run:
        print_plan(invocation, plan_shrink(instance.client, n, dev))
    elif not wait:
        print_status(invocation, instance.client.begin_shrink(n, dev))
    else:
        report = run_shrink(instance.client, n, dev)
        print_report(invocation, report)
        check_complete(report)


def print_report(invocation: Invocation, report: ShrinkResult) -> None:
    if invocation.json:
        print_json(asdict(report))
    else:
        click.echo(
            f"moved {format_pages(report.moved)} to disk, {format_pages(report.left)} left in tmem"
        )


def print_plan(invocation: Invocation, plan: ShrinkPlan) -> None:
    if invocation.json:
        print_json(asdict(plan))
        return
    click.echo(
        f"would move {format_pages(plan.pages)} to disk, {format_pages(plan.left)} left in tmem"
    )
    free = f"{format_size(plan.disk_free)} free on the disk"
    click.echo(free if plan.fits else f"{free}: it would stop when that is full")


def print_status(invocation: Invocation, status: ShrinkStatus) -> None:
    if invocation.json:
        print_json(asdict(status))
    else:
        click.echo(described(status))


def described(status: ShrinkStatus) -> str:
    if status.running:
        return (
            f"a shrink to {format_pages(status.target)} is under way:"
            f" {format_pages(status.moved)} moved, {status.left} left"
        )
    if status.error is not None:
        return f"the last shrink failed: {status.error}"
    if status.result is None:
        return "no shrink is under way"
    report = ShrinkResult.from_json(status.result)
    how = "is done" if report.complete else f"stopped early ({report.reason})"
    moved, left = format_pages(report.moved), format_pages(report.left)
    return f"the last shrink {how}: {moved} moved, {left} left"


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
        in_tmem, on_disk = format_pages(report.pages), format_pages(report.disk_pages)
        click.echo(f"dropped {in_tmem} from tmem, {on_disk} from disk")


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
