# SPDX-License-Identifier: BSD-3-Clause
"""The command preswapctl: its common options and the list of its commands."""

import os
from pathlib import Path
from typing import NoReturn

import click

from preswapd.cli.completion import suggest
from preswapd.cli.instances import Instances
from preswapd.cli.invocation import Invocation
from preswapd.commandline import DIRECTORY, INSTANCE, run
from preswapd.subcommands import Subcommand, Subcommands
from preswapd.version import VERSION

RUNTIME_DIR_VARIABLE = "PRESWAPD_RUNTIME_DIR"

SUBCOMMANDS = [
    Subcommand(
        "list",
        "preswapd.cli.look.list:list_command",
        "Show the devices, one row each.",
    ),
    Subcommand(
        "stats",
        "preswapd.cli.look.stats:stats_command",
        "Show all figures, or those of the pool and the device DEV.",
    ),
    Subcommand(
        "top",
        "preswapd.cli.look.top:top_command",
        "Watch the pools and devices of all instances; q or Ctrl-C ends it.",
    ),
    Subcommand(
        "images",
        "preswapd.cli.look.images:images_command",
        "Show the disk images that are served and cached, one row each, or IMAGE alone.",
    ),
    Subcommand(
        "ages",
        "preswapd.cli.look.ages:ages_command",
        "Show how much of what is in tmem was not used for how long, in all devices or in DEV.",
    ),
    Subcommand(
        "advise",
        "preswapd.cli.look.advise:advise_command",
        "Say what another pool size, or more memory for the guest, would change.",
    ),
    Subcommand(
        "governor",
        "preswapd.cli.look.governor:governor_command",
        "Show what `preswapd govern` does: who may take how much memory, and what it decided last.",
    ),
    Subcommand(
        "metrics",
        "preswapd.cli.look.metrics:metrics_command",
        "Print the figures of all instances in Prometheus' text format.",
    ),
    Subcommand(
        "pull",
        "preswapd.cli.steer.pull:pull_command",
        "Wait until all pages of DEV are here that another host has (`create --from`).",
    ),
    Subcommand(
        "sysctl",
        "preswapd.cli.steer.sysctl:sysctl_command",
        "Print or set named values of a running server.",
    ),
    Subcommand(
        "shrink",
        "preswapd.cli.steer.shrink:shrink_command",
        "Move pages from tmem to disk until N are left, in all devices or in DEV.",
    ),
    Subcommand(
        "freeze",
        "preswapd.cli.steer.sysctl:freeze_command",
        "Let no new pages into tmem: they go to disk until thaw.",
    ),
    Subcommand(
        "thaw",
        "preswapd.cli.steer.sysctl:thaw_command",
        "Let new pages into tmem again.",
    ),
    Subcommand(
        "swapoff",
        "preswapd.cli.steer.swapoff:swapoff_command",
        "Drop all pages of DEV, in tmem and on disk, after the guest's own swapoff.",
    ),
    Subcommand(
        "sync",
        "preswapd.cli.steer.sync:sync_command",
        "Move all pages to disk and save where they are, so that a reboot of the host loses none.",
    ),
    Subcommand(
        "trim",
        "preswapd.cli.steer.trim:trim_command",
        "Make zeros of the unknown pages of DEV, as a trim by its guest would.",
    ),
    Subcommand(
        "save",
        "preswapd.cli.steer.save:save_command",
        "Write all pages of DEV to FILE, or for - to standard output.",
    ),
    Subcommand(
        "restore",
        "preswapd.cli.steer.restore:restore_command",
        "Read all pages of DEV from FILE, or for - from standard input, as save wrote them.",
    ),
    Subcommand(
        "create",
        "preswapd.cli.steer.devices:create_command",
        "Make a new device DEV of SIZE, ready for the guest's swapon.",
    ),
    Subcommand(
        "remove",
        "preswapd.cli.steer.devices:remove_command",
        "Remove the device DEV with everything in it, in tmem and on disk.",
    ),
    Subcommand(
        "mkswap",
        "preswapd.cli.steer.devices:mkswap_command",
        "Write a fresh swap header, with DEV as its label.",
    ),
    Subcommand(
        "qemu-args",
        "preswapd.cli.attach.qemu_args:qemu_args_command",
        "Print the options that give DEV, or an image, to a guest of QEMU, ready to paste.",
    ),
    Subcommand(
        "libvirt-xml",
        "preswapd.cli.attach.libvirt:libvirt_xml_command",
        "Print the XML that gives DEV, or an image, to a guest of libvirt, for virsh edit.",
    ),
    Subcommand(
        "guest-setup",
        "preswapd.cli.attach.guest_setup:guest_setup_command",
        "Print a shell script that root of the guest runs, to swap to its disk DEV.",
    ),
    Subcommand(
        "attach",
        "preswapd.cli.attach.command:attach_command",
        "Give DEV, or an image, to a running guest of QEMU, with the settings of qemu-args.",
    ),
    Subcommand(
        "detach",
        "preswapd.cli.attach.command:detach_command",
        "Take DEV, or an image, out of a running guest of QEMU, after the guest's own swapoff.",
    ),
    Subcommand(
        "park",
        "preswapd.cli.park.park:park_command",
        "Leave an idle virtual machine a fraction of its memory; it runs on, and swaps the rest.",
    ),
    Subcommand(
        "unpark",
        "preswapd.cli.park.unpark:unpark_command",
        "Give a parked virtual machine all of its memory back, at once.",
    ),
    Subcommand(
        "doctor",
        "preswapd.cli.doctor.command:doctor_command",
        "Check this host and the running instances, and say what to fix.",
    ),
]


class Preswapctl(Subcommands):
    """The commands, and what the shell may complete of their values."""

    def suggest(self, kind: str, context: click.Context) -> list[str]:
        given = context.find_root().params
        instances = instances_of(given.get("runtime_dir"), given.get("instance"))
        return suggest(kind, instances, new=context.command.name == "create")


@click.group(
    cls=Preswapctl,
    commands=SUBCOMMANDS,
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
@click.version_option(VERSION, message="preswapctl %(version)s")
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
      preswapctl --json stats | jq '.instances[].tmem.mem_used_total'
    """
    context.obj = Invocation(instances_of(runtime_dir, instance), as_json)


def instances_of(runtime_dir: Path | None, instance: str | None) -> Instances:
    given = os.environ.get(RUNTIME_DIR_VARIABLE)
    if given and runtime_dir is None and instance is None:
        runtime_dir = Path(given)
    return Instances(runtime_dir, instance)


def main() -> NoReturn:
    run(preswapctl, "preswapctl")
