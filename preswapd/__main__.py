"""The command preswapd: `serve` runs a server, `demo` shows one at work."""

from typing import NoReturn

import click

from preswapd.commandline import run
from preswapd.demo.command import demo_command
from preswapd.server.command import serve_command


@click.group(
    commands=[serve_command, demo_command],
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="preswapd", message="preswapd %(version)s")
def preswapd() -> None:
    """A swap disk for Linux guests, kept in compressed shared memory of the host.

    \b
    Example:
      preswapd serve --instance vm1 --pool-size 2G --device swap0=8G
    """


def main() -> NoReturn:
    run(preswapd, "preswapd")


if __name__ == "__main__":
    main()
