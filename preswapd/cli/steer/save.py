# SPDX-License-Identifier: BSD-3-Clause
"""`save`: the pages of a device, in a file or a pipe."""

import sys
from pathlib import Path

import click

from preswapd.api.client import Client
from preswapd.api.save_file import NoSaveError
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.asking import confirm, force_option, yes_option
from preswapd.cli.steer.save_files import PIPE, Output, is_there, output
from preswapd.cli.steer.transfer import Transfer
from preswapd.commandline import DEVICE, FILE
from preswapd.errors import PreswapError, UnreachableError
from preswapd.units import format_pages, format_size


@click.command("save")
@click.argument("dev", type=DEVICE)
@click.argument("file", type=FILE)
@yes_option
@force_option
@pass_invocation
def save_command(invocation: Invocation, dev: str, file: Path, yes: bool, force: bool) -> None:
    """Write all pages of DEV to FILE, or for - to standard output.

    For a guest that was saved (virsh save), and goes on at another host or after a reboot of this
    one: restore brings its pages back. It is refused while a client is connected or pages of DEV
    are on another host (pull), and no client gets in until it has ended. DEV keeps its pages; if a
    guest goes on with them, the file is out of date.

    FILE is compressed, has a checksum, holds what was in the guest's memory, and can be read by
    its owner only. It gets its name when all of it is on disk. If there is one already, it asks.
    Pages of which nothing is known, and those that were lost, are not in it, and are not known
    after the restore.

    \b
    Examples:
      preswapctl save swap0 vm1.swap
      preswapctl save swap0 - | ssh HOST preswapctl restore swap0 -
    """
    over = is_there(file)
    if over and not (yes or force):
        confirm(f"{file} is there already", "Write over it?")
    client = invocation.instances.having(dev).client
    with output(file, over=over) as into:
        transfer = carry_out(client, dev, force, into)
    tell(invocation, dev, file, transfer)


def carry_out(client: Client, dev: str, force: bool, into: Output) -> Transfer:
    transfer, begun = Transfer(dev), False
    try:
        with client.save(dev, force=force) as pieces:
            begun = True
            for piece in pieces:
                into.write(piece)
                transfer.note(piece)
    except NoSaveError as error:
        raise PreswapError(f"{dev} was not saved: {error}") from None
    except UnreachableError as error:
        if not begun:
            raise
        raise PreswapError(f"{dev} was not saved: {error}") from None
    except KeyboardInterrupt:
        raise PreswapError(f"interrupted: {dev} was not saved") from None
    finally:
        transfer.end()
    if not transfer.follower.is_complete:
        raise PreswapError(f"{dev} was not saved: the server broke it off")
    return transfer


def tell(invocation: Invocation, dev: str, file: Path, transfer: Transfer) -> None:
    """Beside the save, where that went to standard output."""
    report, seconds = transfer.follower.report, transfer.seconds
    where = "" if file == PIPE else f" to {file}"
    if report.lost:
        click.echo(
            f"preswapctl: {format_pages(report.lost)} of {dev} had been lost, and are not in it",
            err=True,
        )
    if invocation.json:
        print_json(
            {
                "name": dev,
                "file": None if file == PIPE else str(file),
                "pages": report.pages,
                "zeros": report.zeros,
                "lost": report.lost,
                "bytes": transfer.bytes,
                "seconds": round(seconds, 3),
            },
            sys.stderr if file == PIPE else None,
        )
    else:
        click.echo(
            f"saved {format_pages(report.pages)} of {dev}{where}, {format_size(transfer.bytes)}:"
            f" {seconds:.1f} s, {transfer.rate(seconds)}",
            err=file == PIPE,
        )
