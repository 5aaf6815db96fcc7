# SPDX-License-Identifier: BSD-3-Clause
"""`pull`: the pages of a device that its guest left on the host that it came from."""

import sys
import time
from contextlib import suppress
from dataclasses import asdict

import click

from preswapd.api.client import Client
from preswapd.api.messages import PullStatus
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.asking import confirm, yes_option
from preswapd.commandline import DEVICE, SIZE
from preswapd.errors import PartialError
from preswapd.units import format_pages, format_size

# Between two looks.
LOOK_SECONDS = 0.5


@click.command("pull")
@click.argument("dev", type=DEVICE)
@click.option("--rate", type=SIZE, help="At most so many bytes a second; 0: no limit.")
@click.option("--no-wait", is_flag=True, help="Say how far it is, and do not wait.")
@click.option("--abandon", is_flag=True, help="Give up the pages that are still over there.")
@yes_option
@pass_invocation
def pull_command(
    invocation: Invocation, dev: str, rate: int | None, no_wait: bool, abandon: bool, yes: bool
) -> None:
    """Wait until all pages of DEV are here that another host has (`create --from`).

    They are fetched when the guest reads them, and all others in the background, from its first
    change here on; this command shows how far that is. Ctrl-C ends only the waiting. When all are
    here the other host's server drops what it has.

    --abandon gives up what has not been fetched: reads of these pages are I/O errors then, until
    they are written or trimmed. What the other host has of a guest that has changed something here
    stays there, and is served to nobody, until `preswapctl swapoff` there drops it.

    \b
    Examples:
      preswapctl pull swap0
      preswapctl pull swap0 --rate 50M --no-wait
    """
    client = invocation.instances.serving(dev).client
    if abandon:
        give_up(invocation, client, dev, yes)
        return
    status = client.pull(dev, rate) if rate is not None else client.pull_status(dev)
    if not no_wait:
        status = followed(client, dev, status)
    if invocation.json:
        print_json(asdict(status))
    else:
        click.echo(sentence(dev, status))


def give_up(invocation: Invocation, client: Client, dev: str, yes: bool) -> None:
    status = client.pull_status(dev)
    if status.pending and not yes:
        confirm(stakes(dev, status), "Give them up?")
    lost = client.abandon(dev)
    if invocation.json:
        print_json({"name": dev, "pages": lost})
    else:
        click.echo(f"{format_pages(lost)} of {dev} were given up")


def stakes(dev: str, status: PullStatus) -> str:
    """What is lost, and what becomes of the other host's device."""
    text = (
        f"{format_pages(status.pending)} of {dev} are only on {status.source or 'another host'}:"
        " reads of them will"
        " be I/O errors, but of what a guest reads when it boots"
    )
    if status.taken:
        return f"{text}; what is over there `preswapctl swapoff {dev}` there drops"
    return f"{text}; its guest goes on over there, and is not to come here without another create"


def followed(client: Client, dev: str, status: PullStatus) -> PullStatus:
    """To its end."""
    try:
        while not status.complete:
            show(sentence(dev, status))
            time.sleep(LOOK_SECONDS)
            status = client.pull_status(dev)
    except KeyboardInterrupt:
        raise PartialError(f"it goes on without you: {sentence(dev, status)}") from None
    finally:
        show("")
    return status


def show(text: str) -> None:
    """On a terminal, always the same line."""
    with suppress(OSError):
        if sys.stderr.isatty():
            click.echo(f"\r\033[K{text}", err=True, nl=False)


def sentence(dev: str, status: PullStatus) -> str:
    if status.complete and not status.source:
        return f"{dev} has all its pages"
    if status.complete:
        # It is told again and again, also by the next start.
        why = f": {status.trouble}" if status.trouble else ""
        return f"{dev} has all its pages; {status.source} has still to hear of it{why}"
    text = f"{dev}: {format_pages(status.pending)} are still on {status.source or 'another host'}"
    if status.fetched:
        text += f", {format_pages(status.fetched)} were fetched"
    if status.rate:
        text += f", at {format_size(status.rate)}/s at most"
    if not status.taken:
        text += "; its guest has changed nothing here yet, so none is kept"
    return text + (f"; nothing comes now: {status.trouble}" if status.trouble else "")
