# SPDX-License-Identifier: BSD-3-Clause
"""`doctor`: what on this host is missing, wrong or worth knowing, and what to do about it."""

from contextlib import suppress
from pathlib import Path

import click

from preswapd.cli.doctor.finding import FIX, NOTE, Finding
from preswapd.cli.doctor.guests import check_guests
from preswapd.cli.doctor.host import check_host
from preswapd.cli.doctor.instances import check_instance, share_of
from preswapd.cli.doctor.sharing import Share, check_sharing
from preswapd.cli.doctor.units import check_units, units_installed
from preswapd.cli.instances import Instances, RunningInstance, is_there
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.errors import PreswapError, UnreachableError
from preswapd.paths import SYSTEM_RUNTIME_ROOT, runtime_root

START = "start it: preswapd serve"
START_UNIT = "start it: systemctl start preswapd@{name}"
HANGS = "see its log: it is starting, is stopped (SIGSTOP) or hangs; a restart loses no page"


@click.command("doctor")
@pass_invocation
def doctor_command(invocation: Invocation) -> int:
    """Check this host and the running instances, and say what to fix.

    Works without a running server. Exit status 1 when something must be fixed.

    \b
    Example:
      preswapctl doctor
    """
    findings = [*check_host(), *check_units(Path("/")), *check_guests()]
    instances = running(invocation.instances, findings)
    for instance in instances:
        findings += checked(instance)
    findings += check_sharing(shares(instances))
    if invocation.json:
        print_json({"checks": [finding.to_json() for finding in findings]})
    else:
        for finding in findings:
            click.echo(finding.as_text())
    return int(any(finding.status == FIX for finding in findings))


def running(instances: Instances, findings: list[Finding]) -> list[RunningInstance]:
    """The instances that run; a note if there are none."""
    try:
        return instances.running()
    except UnreachableError as error:
        findings.append(Finding(NOTE, "server", str(error), start(runtime_root() / "NAME")))
        return []


def checked(instance: RunningInstance) -> list[Finding]:
    """An instance that does not answer, or ends while it is checked, is one thing to fix."""
    try:
        return check_instance(instance)
    except PreswapError as error:
        mend = HANGS if is_there(instance.runtime_dir) else start(instance.runtime_dir)
        return [Finding(FIX, f"instance {instance.name}", str(error), mend)]


def shares(instances: list[RunningInstance]) -> list[Share]:
    """Of those that answer; what is wrong with the others has been said."""
    found = []
    for instance in instances:
        with suppress(PreswapError):
            found.append(share_of(instance))
    return found


def start(runtime_dir: Path, root: Path = Path("/")) -> str:
    """How to start it: the units start only servers in the system's runtime directory."""
    if runtime_dir.parent == SYSTEM_RUNTIME_ROOT and units_installed(root):
        return START_UNIT.format(name=runtime_dir.name)
    return START
