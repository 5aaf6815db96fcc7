"""`qemu-args`: what to paste so that a guest sees the device."""

import json
import shlex
from pathlib import Path

import click

from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.commandline import DEVICE
from preswapd.errors import UsageError

# How long a guest's requests wait for a server that is gone before they fail.
RECONNECT_SECONDS = 300
OPEN_SECONDS = 30


@click.command("qemu-args")
@click.argument("dev", type=DEVICE)
@pass_invocation
def qemu_args_command(invocation: Invocation, dev: str) -> None:
    """Print the options that give DEV to a guest of QEMU, ready to paste.

    The disk is virtio-scsi and says that it does not rotate: a guest gives swapped pages back only
    to such a disk. In the guest, then: swapon --discard LABEL=DEV

    \b
    Example:
      eval qemu-system-x86_64 -m 1G ... "$(preswapctl qemu-args swap0)"
    """
    instance = invocation.instances.having(dev)
    if dev not in instance.client.devices():
        raise UsageError(f"there is no device {dev!r} in {instance.name}")
    arguments = qemu_arguments(dev, instance.nbd_socket)
    if invocation.json:
        print_json(arguments)
    else:
        click.echo(as_shell(arguments))


def qemu_arguments(dev: str, socket: Path) -> list[str]:
    blockdev = {
        "driver": "nbd",
        "node-name": f"preswap-{dev}",
        "server": {"type": "unix", "path": str(socket)},
        "export": dev,
        "reconnect-delay": RECONNECT_SECONDS,
        "open-timeout": OPEN_SECONDS,
        "discard": "unmap",
        "detect-zeroes": "off",
        "cache": {"direct": True, "no-flush": False},
    }
    disk = (
        f"scsi-hd,bus=pss-{dev}.0,drive=preswap-{dev},serial=preswap-{dev},rotation_rate=1,"
        "werror=stop,rerror=stop"
    )
    return [
        "-blockdev",
        json.dumps(blockdev, separators=(",", ":")),
        "-device",
        f"virtio-scsi-pci,id=pss-{dev}",
        "-device",
        disk,
    ]


def as_shell(arguments: list[str]) -> str:
    """One option a line, with the backslashes that make it one command."""
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    return " \\\n".join(f"{option} {shlex.quote(value)}" for option, value in pairs)
