# SPDX-License-Identifier: BSD-3-Clause
"""The command preswapd: `serve` runs a server, `govern` shares memory out among all of them, `demo`
shows one at work."""

from typing import NoReturn

import click

from preswapd.commandline import run
from preswapd.host.inherited import start_over
from preswapd.subcommands import Subcommand, Subcommands
from preswapd.version import VERSION


@click.group(
    cls=Subcommands,
    commands=[
        Subcommand(
            "demo",
            "preswapd.demo.command:demo_command",
            "Boot a Linux guest that swaps through preswapd, and check every byte.",
        ),
        Subcommand(
            "govern",
            "preswapd.govern.command:govern_command",
            "Share the host's memory out among all pools, until SIGTERM or SIGINT.",
        ),
        Subcommand(
            "serve",
            "preswapd.server.command:serve_command",
            "Serve swap disks, in the foreground, until SIGTERM or SIGINT.",
        ),
    ],
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(VERSION, message="preswapd %(version)s")
def preswapd() -> None:
    """A swap disk for Linux guests, kept in compressed shared memory of the host.

    \b
    Example:
      preswapd serve --instance vm1 --pool-size 2G --device swap0=8G
    """


def main() -> NoReturn:
    start_over()
    run(preswapd, "preswapd")


if __name__ == "__main__":
    main()
