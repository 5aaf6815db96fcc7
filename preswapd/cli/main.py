"""The command preswapctl: its common options and the list of its commands."""

import os
from pathlib import Path
from typing import NoReturn

import click

from preswapd.cli.attach.command import attach_command, detach_command
from preswapd.cli.attach.guest_setup import guest_setup_command
from preswapd.cli.attach.libvirt import libvirt_xml_command
from preswapd.cli.attach.qemu_args import qemu_args_command
from preswapd.cli.completion import suggest
from preswapd.cli.doctor.command import doctor_command
from preswapd.cli.instances import Instances
from preswapd.cli.invocation import Invocation
from preswapd.cli.look.metrics import metrics_command
from preswapd.cli.look.show import list_command, stats_command
from preswapd.cli.look.top import top_command
from preswapd.cli.steer.devices import create_command, mkswap_command, remove_command
from preswapd.cli.steer.shrink import shrink_command
from preswapd.cli.steer.swapoff import swapoff_command
from preswapd.cli.steer.sysctl import freeze_command, sysctl_command, thaw_command
from preswapd.commandline import DIRECTORY, INSTANCE, run

RUNTIME_DIR_VARIABLE = "PRESWAPD_RUNTIME_DIR"


class Preswapctl(click.Group):
    """The commands, and what the shell may complete of their values."""

    def suggest(self, kind: str, context: click.Context) -> list[str]:
        given = context.find_root().params
        instances = instances_of(given.get("runtime_dir"), given.get("instance"))
        return suggest(kind, instances, new=context.command is create_command)


@click.group(
    cls=Preswapctl,
    commands=[
        list_command,
        stats_command,
        top_command,
        metrics_command,
        sysctl_command,
        shrink_command,
        freeze_command,
        thaw_command,
        swapoff_command,
        create_command,
        remove_command,
        mkswap_command,
        qemu_args_command,
        libvirt_xml_command,
        guest_setup_command,
        attach_command,
        detach_command,
        doctor_command,
    ],
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--runtime-dir",
    type=DIRECTORY,
    help="The runtime directory of the instance.",
)
@click.option("--instance", type=INSTANCE, help="The name of the instance.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.version_option(package_name="preswapd", message="preswapctl %(version)s")
@click.pass_context
def preswapctl(
    context: click.Context, runtime_dir: Path | None, instance: str | None, as_json: bool
) -> None:
    """Look at and steer running preswapd servers.

    Without --runtime-dir and --instance, PRESWAPD_RUNTIME_DIR names the instance; without that,
    the commands speak to every instance that runs under the default root.

    \b
    Exit status: 0 done, 1 failed, 2 usage, 3 no server answers, 4 refused (nothing was changed),
    5 partly done (run it again to go on).

    \b
    Examples:
      preswapctl list
      preswapctl --instance vm1 shrink 512M
      preswapctl --json stats | jq .tmem.mem_used_total
    """
    context.obj = Invocation(instances_of(runtime_dir, instance), as_json)


def instances_of(runtime_dir: Path | None, instance: str | None) -> Instances:
    given = os.environ.get(RUNTIME_DIR_VARIABLE)
    if given and runtime_dir is None and instance is None:
        runtime_dir = Path(given)
    return Instances(runtime_dir, instance)


def main() -> NoReturn:
    run(preswapctl, "preswapctl")
