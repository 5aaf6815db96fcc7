"""The command preswapd: `serve` runs a server, `demo` shows one at work."""

from importlib import import_module
from typing import NoReturn

import click

from preswapd.commandline import run

# Each is imported when it is asked for: a guest waits while `serve` starts again.
COMMANDS = {
    "demo": ("preswapd.demo.command", "demo_command"),
    "serve": ("preswapd.server.command", "serve_command"),
}


class Commands(click.Group):
    """The commands of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(
    cls=Commands,
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
