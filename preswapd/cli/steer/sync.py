# SPDX-License-Identifier: BSD-3-Clause
"""`sync`: what is in memory goes to disk, so that a reboot of the host loses nothing."""

import click

from preswapd.cli.invocation import Invocation, pass_invocation
from preswapd.cli.steer.following import check_synced, run_sync
from preswapd.cli.steer.shrink import print_report, print_status
from preswapd.commandline import DEVICE


@click.command("sync")
@click.argument("dev", required=False, type=DEVICE)
@click.option(
    "--wait/--no-wait", default=True, help="Wait until the sync has ended. Default: --wait."
)
@pass_invocation
def sync_command(invocation: Invocation, dev: str | None, wait: bool) -> None:
    """Move all pages to disk and save where they are, so that a reboot of the host loses none.

    Of all devices, or of DEV. preswapd-sync@INSTANCE.service does it when the host shuts down; by
    hand it is for what comes without a shutdown (kexec), or before a disk file is moved. Guests
    keep running, and a guest that goes on writing makes its device dirty again, as if there had
    been no sync: so shut the guests down, save or suspend them first.

    Ctrl-C ends it between two writes, and pages that have moved stay on disk: run it again to go
    on. With --no-wait it goes on without you: `preswapctl shrink --status` tells how far it is,
    `preswapctl shrink --stop` stops it. Exit status 5: not everything is on disk.

    \b
    Examples:
      preswapctl --instance vm1 sync
      preswapctl --instance vm1 sync swap0
    """
    instances = invocation.instances
    client = (instances.only() if dev is None else instances.having(dev)).client
    if not wait:
        print_status(invocation, client.begin_sync(dev))
        return
    report = run_sync(client, dev)
    print_report(invocation, report)
    check_synced(report)
