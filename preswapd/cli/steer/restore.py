# SPDX-License-Identifier: BSD-3-Clause
"""`restore`: the pages of a device come back from a file or a pipe."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from preswapd.api.client import Client
from preswapd.api.messages import SavedDevice
from preswapd.api.save_file import NoSaveError
from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.output import print_json
from preswapd.cli.steer.asking import force_option
from preswapd.cli.steer.save_files import input_of
from preswapd.cli.steer.transfer import Transfer
from preswapd.commandline import DEVICE, FILE
from preswapd.errors import PreswapError, UnreachableError
from preswapd.units import format_pages


@click.command("restore")
@click.argument("dev", type=DEVICE)
@click.argument("file", type=FILE)
@force_option
@pass_invocation
def restore_command(invocation: Invocation, dev: str, file: Path, force: bool) -> None:
    """Read all pages of DEV from FILE, or for - from standard input, as save wrote them.

    Only into a device of the same size of which nothing is known: a new one, or one that has lost
    its pages by a reboot; not into one that waits for a guest from another host, or was taken by
    one (create --from). It is refused while a client is connected, and no client gets in until it
    has ended: start the guest afterwards. The pages go to memory as if a guest had written them,
    or to disk where the pool has no room.

    All or nothing: if FILE is damaged, cut or of another size, at Ctrl-C, if the disk is full, if
    the server is killed, nothing is known of DEV, as before, and it can be restored again. Keep
    FILE until the guest runs: a reboot of this host takes what is in memory.

    \b
    Examples:
      preswapctl create swap0 8G
      preswapctl restore swap0 vm1.swap
    """
    client = invocation.instances.having(dev).client
    transfer = Transfer(dev)
    answer = carry_out(client, dev, file, force, transfer)
    tell(invocation, dev, answer, transfer)


class Sent:
    """How far what is sent is."""

    def __init__(self) -> None:
        self.has_begun = False
        self.is_whole = False

    def watched(self, pieces: Iterator[bytes], transfer: Transfer) -> Iterator[bytes]:
        self.has_begun = is_save = True
        for piece in pieces:
            yield piece
            try:
                if is_save:
                    transfer.note(piece)
            except NoSaveError:
                is_save = False  # which the server will say, and why
        self.is_whole = True


def carry_out(
    client: Client, dev: str, file: Path, force: bool, transfer: Transfer
) -> dict[str, Any]:
    sent = Sent()
    nothing = f"{dev} was not restored, none of its pages is known"
    try:
        with input_of(file) as pieces:
            return client.restore(dev, sent.watched(pieces, transfer), force=force)
    except UnreachableError as error:
        if sent.is_whole:
            raise PreswapError(
                f"{error}; nobody can say whether {dev} was restored: run it again, which is"
                " refused where it was"
            ) from None
        if sent.has_begun:
            raise PreswapError(f"{nothing}: {error}") from None
        raise
    except KeyboardInterrupt:
        if sent.is_whole:
            raise
        raise PreswapError(f"interrupted: {nothing}") from None
    finally:
        transfer.end()


def tell(invocation: Invocation, dev: str, answer: dict[str, Any], transfer: Transfer) -> None:
    seconds = transfer.seconds
    if invocation.json:
        print_json({**answer, "bytes": transfer.bytes, "seconds": round(seconds, 3)})
        return
    saved = SavedDevice.from_json(answer["saved"])
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(saved.time))
    click.echo(
        f"restored {format_pages(answer['pages'])} of {dev}, saved {when} from {saved.device} of"
        f" {saved.instance}: {seconds:.1f} s, {transfer.rate(seconds)}"
    )
