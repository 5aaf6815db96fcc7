# SPDX-License-Identifier: BSD-3-Clause
"""`qemu-args`: what to add to QEMU's command line so that a guest sees the device or image."""

import json
import shlex
from pathlib import Path
from typing import Any

import click

from preswapd.cli.attach.disk import SCSI, Disk, Properties, bus_option
from preswapd.cli.attach.exported import exported_disk
from preswapd.cli.attach.overlay import overlay_option
from preswapd.cli.attach.remote import Way, remote_options
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.commandline import EXPORT

# How long a guest that starts together with the server waits for it.
OPEN_SECONDS = 30


@click.command("qemu-args")
@click.argument("dev", type=EXPORT)
@bus_option
@overlay_option
@remote_options
@pass_invocation
def qemu_args_command(
    invocation: Invocation, /, dev: str, bus: str, overlay: Path | None, **way: Any
) -> None:
    """Print the options that give DEV, or an image, to a guest of QEMU, ready to paste.

    The disk is virtio-scsi and says that it does not rotate: only on such a disk does a guest
    discard the swap that it frees. Then, in the guest: swapon --discard LABEL=DEV

    An image is a read-only disk, and a writable one the disk of one guest. With --overlay a
    read-only one is the base of a disk that the guest may write to: FILE is a qcow2 file of this
    guest alone. Where it is missing it is made; one that is something else than an overlay of that
    image is refused.

    With --tcp the guest runs on another host, and the options are to be pasted there. They hold no
    key, only where the keys are.

    \b
    Examples:
      disk=$(preswapctl qemu-args swap0) && eval "set -- $disk" && qemu-system-x86_64 -m 1G ... "$@"
      preswapctl qemu-args debian --overlay /srv/vm1.qcow2
      preswapctl qemu-args swap0 --tcp host1.example.org:10809 --keys-dir /etc/preswapd-guest
    """
    disk = exported_disk(invocation.instances, dev, bus, overlay, Way(**way))
    arguments = qemu_arguments(disk)
    if invocation.json:
        print_json(arguments)
    else:
        click.echo(as_shell(arguments))


def qemu_arguments(disk: Disk) -> list[str]:
    arguments = []
    for option, properties in qemu_options(disk):
        value = as_option(properties) if option == "-device" else as_json(properties)
        arguments += [option, value]
    return arguments


def qemu_options(disk: Disk) -> list[tuple[str, Properties]]:
    """In the order in which QEMU needs them."""
    controller = [("-device", disk.controller())] if disk.bus == SCSI else []
    node = disk.node() | {"open-timeout": OPEN_SECONDS}
    above = [("-blockdev", upper) for upper in disk.upper_nodes()]
    keys = [("-object", each) for each in disk.objects()]
    return [*keys, ("-blockdev", node), *above, *controller, ("-device", disk.device())]


def as_json(properties: Properties) -> str:
    return json.dumps(properties, separators=(",", ":"))


def as_option(properties: Properties) -> str:
    """The form that every version of QEMU takes; no value of ours has a comma in it."""
    driver, *others = properties.items()
    return ",".join([driver[1], *(f"{name}={value}" for name, value in others)])


def as_shell(arguments: list[str]) -> str:
    """One option a line, with the backslashes that make it one command."""
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    return " \\\n".join(f"{option} {shlex.quote(value)}" for option, value in pairs)
