# SPDX-License-Identifier: BSD-3-Clause
"""The command `preswapd serve`."""

from typing import Any

import click

from preswapd.commandline import FILE, Reader
from preswapd.server.config.merged import load
from preswapd.server.config.options import parse_device, setting_options
from preswapd.server.config.shown import as_toml
from preswapd.server.serve import serve


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
    "--show-config",
    is_flag=True,
    help="Print the values in force and where each comes from, and exit.",
)
def serve_command(show_config: bool, **given: Any) -> None:
    """Serve swap disks, in the foreground, until SIGTERM or SIGINT.

    One line that begins with "ready" on stderr says that clients can connect.

    \b
    Exit status: 0 stopped by a signal, 1 failed, 2 usage or a bad configuration,
    4 refused (in use, pages lost or of another version, disk file missing or changed).

    \b
    Example:
      preswapd serve --instance vm1 --pool-size 2G --device swap0=8G
    """
    config = load(**given)
    if show_config:
        click.echo(as_toml(config), nl=False)
    else:
        serve(config)
