# SPDX-License-Identifier: BSD-3-Clause
"""`shrink`: pages go to disk, and the host gets their memory back."""

from dataclasses import asdict, dataclass
from pathlib import Path

import click

from preswapd.api.client import Client
from preswapd.api.messages import ShrinkResult, ShrinkStatus
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.following import check_complete, run_shrink
from preswapd.commandline import DEVICE, PAGES
from preswapd.errors import UsageError
from preswapd.host.filesystems import free_bytes
from preswapd.units import PAGE_SIZE, format_pages, format_size


@dataclass(frozen=True)
class ShrinkPlan:
    """What a shrink would do, in pages; bytes that the disk has free, and whether they suffice."""

    pages: int
    left: int
    disk_free: int
    fits: bool


@click.command("shrink")
@click.argument("n", type=PAGES, required=False)
@click.argument("dev", required=False, type=DEVICE)
@click.option(
    "--wait/--no-wait", default=True, help="Wait until the shrink has ended. Default: --wait."
)
@click.option("--dry-run", is_flag=True, help="Only say what would move.")
@click.option(
    "--status", "other", flag_value="status", help="Tell how far the shrink or sync under way is."
)
@click.option("--stop", "other", flag_value="stop", help="Stop the shrink or sync under way.")
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

    N counts pages, or is a size such as 64M. Guests keep running. Ctrl-C or --stop ends it
    between two writes, and pages that have moved stay on disk: run it again to go on. Exit status
    5: it stopped early.

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
        raise UsageError("N is missing: how many pages, or what size, are to be left?")
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


def plan_shrink(client: Client, pages: int, device: str | None) -> ShrinkPlan:
    devices = client.devices()
    chosen = [client.device(device)] if device is not None else list(devices.values())
    there = sum(int(counters["preswap_pages"]) for counters in chosen)
    moved = max(0, there - pages)
    free = free_bytes(Path(client.facts().state_dir))
    return ShrinkPlan(moved, there - moved, free, moved * PAGE_SIZE <= free)


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
    click.echo(free if plan.fits else f"{free}: it would stop there")


def print_status(invocation: Invocation, status: ShrinkStatus) -> None:
    if invocation.json:
        print_json(asdict(status))
    else:
        click.echo(described(status))


def described(status: ShrinkStatus) -> str:
    purpose = f", to fit {status.setting}," if status.setting else ""
    what = "sync" if status.sync else f"shrink{purpose}"
    if status.running:
        following = f"; {' and '.join(status.waiting)} will follow" if status.waiting else ""
        target = "" if status.sync else f" to {format_pages(status.target)}"
        return (
            f"a {what}{target} is under way:"
            f" {format_pages(status.moved)} moved, {status.left} left{following}"
        )
    if status.error is not None:
        return f"the last {what} failed: {status.error}"
    if status.result is None:
        return "no shrink is under way"
    report = ShrinkResult.from_json(status.result)
    how = "is done" if report.complete else f"stopped early ({report.reason})"
    moved, left = format_pages(report.moved), format_pages(report.left)
    return f"the last {what} {how}: {moved} moved, {left} left"
