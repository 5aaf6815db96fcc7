# SPDX-License-Identifier: BSD-3-Clause
"""The command `preswapd serve`."""

from typing import Any

import click

from preswapd.commandline import FILE, Reader
from preswapd.server.config.merged import load
from preswapd.server.config.options import parse_device, parse_image, setting_options
from preswapd.server.config.shown import as_toml
from preswapd.server.serve import serve
from preswapd.subcommands import imported

# Loaded when it is asked for: a guest waits while a server starts.
SYNC = "preswapd.server.syncing:sync"


@click.command("serve")
@click.option(
    "--config",
    type=FILE,
    help="Configuration file, with its drop-ins FILE.d/*.toml. Default:"
    " /etc/preswapd/INSTANCE.toml, where it exists.",
)
@setting_options
@click.option(
    "--device",
    "devices",
    multiple=True,
    type=Reader("name=size", parse_device),
    help="A swap device; may be given several times.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=Reader("name=path", parse_image),
    help="A raw disk image that clients read, cached in memory that swap does not need; may be"
    " given several times.",
)
@click.option(
    "--system",
    is_flag=True,
    help="The defaults of directories are those for root, whoever runs it.",
)
@click.option(
    "--discard-state",
    is_flag=True,
    help="Start empty: drop all pages in memory and on disk.",
)
@click.option(
    "--accept-moved",
    is_flag=True,
    help="Believe disk files that were moved, copied or changed on purpose, at this start.",
)
@click.option(
    "--sync-and-exit",
    is_flag=True,
    help="Serve nobody: move pages that a stopped server has left in memory to disk, save where"
    " all pages are, and exit.",
)
@click.option(
    "--show-config",
    is_flag=True,
    help="Print the values in force and where each comes from, and exit.",
)
def serve_command(show_config: bool, sync_and_exit: bool, **given: Any) -> None:
    """Serve swap disks, in the foreground, until SIGTERM or SIGINT.

    One line that begins with "ready" on stderr says that clients can connect.

    After a disk file was copied or moved on purpose, or given another owner: --accept-moved, with
    --sync-and-exit where systemd starts the server. Without it such a file is refused, or its
    pages are unknown; it must hold all that the old one held at its server's clean stop.

    \b
    Exit status: 0 stopped by a signal, 1 failed, 2 usage or a bad configuration,
    4 refused (in use, pages lost or of another version, disk file missing or changed),
    5 not everything is on disk (--sync-and-exit).

    \b
    Examples:
      preswapd serve --instance vm1 --pool-size 2G --device swap0=8G
      preswapd serve --config /etc/preswapd/vm1.toml --instance vm1 --sync-and-exit
    """
    config = load(**given)
    if show_config:
        click.echo(as_toml(config), nl=False)
    elif sync_and_exit:
        imported(SYNC)(config)
    else:
        serve(config)
