# SPDX-License-Identifier: BSD-3-Clause
"""`shrink`: pages go to disk, and the host gets their memory back."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from preswapd.api.client import Client
from preswapd.api.messages import ShrinkResult, ShrinkStatus
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.following import check_complete, run_idle_shrink, run_shrink
from preswapd.commandline import AGE, DEVICE, PAGES, Reader
from preswapd.errors import UsageError
from preswapd.host.filesystems import free_bytes
from preswapd.units import PAGE_SIZE, format_duration, format_pages, format_size


class Way(NamedTuple):
    """What is to go, and from which device: planned, begun, or carried out to its end."""

    device: str | None
    plan: Callable[[Client], "ShrinkPlan"]
    begin: Callable[[Client], ShrinkStatus]
    run: Callable[[Client], ShrinkResult]


@dataclass(frozen=True)
class ShrinkPlan:
    """What a shrink would do, in pages; bytes that the disk has free, and whether they suffice."""

    pages: int
    left: int
    disk_free: int
    fits: bool


class FirstArgument(Reader[int | str]):
    """N; with --idle there is none, and what comes first is the device."""

    def kind(self, context: click.Context | None) -> Reader[Any]:
        # Of an option that is not given newer releases of click have a value of their own here.
        is_device = context is not None and isinstance(context.params.get("idle"), int)
        return DEVICE if is_device else PAGES

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        found: int | str = self.kind(ctx).convert(value, param, ctx)
        return found

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return self.kind(ctx).shell_complete(ctx, param, incomplete)


@click.command("shrink")
@click.argument("n", type=FirstArgument("n", str), required=False)
@click.argument("dev", required=False, type=DEVICE)
@click.option(
    "--idle",
    type=AGE,
    # Before the arguments, wherever it stands: they depend on it.
    is_eager=True,
    help="Instead of N: move the pages that were not used for AGE, as 90s, 30m or 2h.",
)
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
    n: int | str | None,
    dev: str | None,
    idle: int | None,
    wait: bool,
    dry_run: bool,
    other: str | None,
) -> None:
    """Move pages from tmem to disk until N are left, in all devices or in DEV.

    N counts pages, or is a size such as 64M. Guests keep running. Ctrl-C or --stop ends it
    between two writes, and pages that have moved stay on disk: run it again to go on. Exit status
    5: it stopped early.

    With --idle there is no N: pages go that were neither written nor read for AGE, all of them, in
    all devices or in DEV. `preswapctl ages` shows how many there are.

    \b
    Examples:
      preswapctl shrink 0
      preswapctl shrink 512M swap0 --dry-run
      preswapctl shrink --idle 30m
      preswapctl shrink --idle 2h swap0
      preswapctl shrink 0 --no-wait; preswapctl shrink --status
    """
    if other is not None:
        if n is not None or idle is not None or dry_run or not wait:
            raise UsageError(f"--{other} takes neither N nor other options")
        client = invocation.instances.only().client
        stops = other == "stop"
        print_status(invocation, client.stop_shrink() if stops else client.shrink_status())
        return
    way = to_idle(n, dev, idle) if idle is not None else to_pages(n, dev)
    instances = invocation.instances
    instance = instances.only() if way.device is None else instances.having(way.device)
    if dry_run:
        print_plan(invocation, way.plan(instance.client))
    elif not wait:
        print_status(invocation, way.begin(instance.client))
    else:
        report = way.run(instance.client)
        print_report(invocation, report)
        check_complete(report)


def to_pages(n: int | str | None, dev: str | None) -> Way:
    if not isinstance(n, int):
        raise UsageError("N is missing: how many pages, or what size, are to be left?")
    return Way(
        dev,
        lambda client: plan_shrink(client, n, dev),
        lambda client: client.begin_shrink(n, dev),
        lambda client: run_shrink(client, n, dev),
    )


def to_idle(first: int | str | None, second: str | None, seconds: int) -> Way:
    age = format_duration(seconds)
    if second is not None:
        raise UsageError(f"--idle takes no N: `preswapctl shrink --idle {age} {second}`")
    if seconds == 0:
        raise UsageError("--idle takes an age of a second or more: `preswapctl shrink 0` moves all")
    dev = None if first is None else str(first)
    return Way(
        dev,
        lambda client: plan_idle_shrink(client, seconds, dev),
        lambda client: client.begin_idle_shrink(seconds, dev),
        lambda client: run_idle_shrink(client, seconds, dev),
    )


def plan_shrink(client: Client, pages: int, device: str | None) -> ShrinkPlan:
    devices = client.devices()
    chosen = [client.device(device)] if device is not None else list(devices.values())
    there = sum(int(counters["preswap_pages"]) for counters in chosen)
    return planned(client, there, max(0, there - pages))


def plan_idle_shrink(client: Client, seconds: int, device: str | None) -> ShrinkPlan:
    there, idle = client.ages(device, [0, seconds])
    return planned(client, there.pages, idle.pages)


def planned(client: Client, there: int, moved: int) -> ShrinkPlan:
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
    age = f" of what was idle for {format_duration(status.idle)}" if status.idle else ""
    what = "sync" if status.sync else f"shrink{age}{purpose}"
    if status.running:
        following = f"; {' and '.join(status.waiting)} will follow" if status.waiting else ""
        target = "" if status.sync or status.idle else f" to {format_pages(status.target)}"
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
