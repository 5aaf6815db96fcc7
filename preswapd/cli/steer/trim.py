# SPDX-License-Identifier: BSD-3-Clause
"""`trim`: pages of which nothing is known become zeros, where an operator knows better."""

import click

from preswapd.cli.instances import RunningInstance
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.asking import confirm, yes_option
from preswapd.commandline import DEVICE
from preswapd.units import format_pages


@click.command("trim")
@click.argument("dev", type=DEVICE)
@yes_option
@pass_invocation
def trim_command(invocation: Invocation, dev: str, yes: bool) -> None:
    """Make zeros of the unknown pages of DEV, as a trim by its guest would.

    A page is unknown as long as no guest has written or trimmed it, as far as the server knows:
    of a new device, and after a reboot of the host that the page did not survive. Reading it is an
    I/O error. Trim them when no guest needs them: before a program that is no swap reads the whole
    disk, say. A guest that was restored, resumed or moved here may still need some of them, and
    would read zeros for its own memory: reboot that guest instead. Lost pages stay lost.

    \b
    Example:
      preswapctl --instance vm1 trim swap0
    """
    instance = invocation.instances.serving(dev)
    unknown = instance.client.device(dev).get("unknown_pages", 0)
    if unknown and not yes:
        confirm(explained(instance, dev, unknown), "Make zeros of them?")
    made = instance.client.trim(dev)
    if invocation.json:
        print_json({"name": dev, "pages": made})
    else:
        click.echo(f"{format_pages(made)} of {dev} became zeros")


def explained(instance: RunningInstance, dev: str, unknown: int) -> str:
    return (
        f"of {dev} of {instance.name} nothing is known of {format_pages(unknown)}, whose reads are"
        " I/O errors: a guest that was restored, resumed or moved here would read zeros for those"
        " of them that it has swapped out"
    )
