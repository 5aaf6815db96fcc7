# SPDX-License-Identifier: BSD-3-Clause
"""`doctor`: what on this host is missing, wrong or worth knowing, and what to do about it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import click

from preswapd.cli.doctor.container import check_container
from preswapd.cli.doctor.finding import FIX, NOTE, Finding
from preswapd.cli.doctor.guests import check_guests
from preswapd.cli.doctor.host import check_host
from preswapd.cli.doctor.instances import check_instance, share_of
from preswapd.cli.doctor.readable import check_readable
from preswapd.cli.doctor.reboot import check_reboot
from preswapd.cli.doctor.sharing import Share, check_sharing
from preswapd.cli.doctor.starting import configured, is_configured, revive, start
from preswapd.cli.doctor.units import check_units
from preswapd.cli.instances import Instances, RunningInstance, is_there
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.stopped import Stopped, stopped
from preswapd.cli.typed import control
from preswapd.errors import PreswapError, UnreachableError
from preswapd.host import filesystems
from preswapd.paths import (
    DEFAULT_INSTANCE,
    RuntimePaths,
    default_runtime_dir,
    default_shm_dirs,
    is_root,
)


@click.command("doctor")
@pass_invocation
def doctor_command(invocation: Invocation) -> int:
    """Check this host and the running instances, and say what to fix.

    Works without a running server. A line that begins with `->` says what to do, and the command
    in it can be typed as it is. Exit status 1 when something must be fixed.

    \b
    Example:
      preswapctl doctor
    """
    root = Path("/")
    findings = [
        *check_host(),
        *check_container(),
        *check_units(root),
        *check_readable(root),
        *check_guests(),
        *check_instances(invocation.instances),
    ]
    if invocation.json:
        print_json({"checks": [finding.to_json() for finding in findings]})
    else:
        for finding in findings:
            click.echo(finding.as_text())
    return int(any(finding.status == FIX for finding in findings))


def check_instances(instances: Instances) -> Iterator[Finding]:
    """Those that run, and those that should."""
    try:
        running = instances.running()
    except UnreachableError as error:
        running = []
        if not instances.stopped and not not_running(running):
            text = str(error)
            yield Finding(
                NOTE, "server", text, "start one", start(default_runtime_dir(DEFAULT_INSTANCE))
            )
    answering = []
    for instance in running:
        findings, answers = checked(instance)
        yield from findings
        if answers:
            answering.append(instance)
    # One that hangs would be waited for again at each question.
    yield from check_reboot(pages_in_memory(answering))
    yield from check_sharing(shares(answering))
    if instances.named:
        return
    for gone in instances.stopped:
        yield away(gone)
    for name in not_running([*running, *instances.stopped]):
        text = "is configured and does not run"
        runtime_dir = default_runtime_dir(name)
        yield Finding(NOTE, f"instance {name}", text, "start it", start(runtime_dir))


def pages_in_memory(instances: list[RunningInstance]) -> Iterator[tuple[Path, int]]:
    """With the state directory of each instance that answers."""
    for instance in instances:
        with suppress(PreswapError):
            pages = instance.client.preswap_pages()
            yield Path(instance.client.facts().state_dir), pages


def checked(instance: RunningInstance) -> tuple[list[Finding], bool]:
    """And whether it answers: where it does not, or ends meanwhile, that is one thing to fix."""
    try:
        return check_instance(instance), True
    except PreswapError as error:
        return [silent(instance, str(error))], False


def silent(instance: RunningInstance, text: str) -> Finding:
    subject, place = f"instance {instance.name}", instance.runtime_dir
    if is_there(place):
        return Finding(FIX, subject, text, *revive(place))
    if is_closed(RuntimePaths(place).control_socket):
        return Finding(FIX, subject, text, "as root", f"sudo {control(place, 'doctor')}")
    for gone in stopped([place], default_shm_dirs()):
        return away(gone)
    is_known = place.exists() or is_configured(place.name)
    mend = "start it" if is_known else "no instance has that name; to make it"
    return Finding(FIX, subject, text, mend, start(place))


def is_closed(socket: Path) -> bool:
    """Whether it is there, and not for whoever asks; what cannot be seen is there too."""
    try:
        return filesystems.is_there(socket) and not os.access(socket, os.W_OK)
    except PermissionError:
        return True


def shares(instances: list[RunningInstance]) -> list[Share]:
    """Of those that answer; what is wrong with the others has been said."""
    found = []
    for instance in instances:
        with suppress(PreswapError):
            found.append(share_of(instance))
    return found


def away(gone: Stopped) -> Finding:
    devices = ", ".join(name for name, pages in gone.pages.items() if pages)
    return Finding(
        FIX,
        f"instance {gone.name}",
        f"{gone.text} ({devices})",
        "start it, which loses none of them",
        start(gone.runtime_dir),
    )


def not_running(known: Sequence[RunningInstance | Stopped]) -> list[str]:
    """Those that the host's configuration has; an ordinary user's servers are none of them."""
    names = {instance.name for instance in known}
    return [name for name in configured() if name not in names] if is_root() else []
