# SPDX-License-Identifier: BSD-3-Clause
"""What the two commands have in common: how they end, and the kinds of values they take."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from typing import Generic, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from preswapd.errors import PreswapError, UsageError
from preswapd.log import ERROR, prefix
from preswapd.paths import check_device_name, check_instance_name, parse_path
from preswapd.units import parse_duration, parse_pages, parse_size

DEBUG_VARIABLE = "PRESWAPD_DEBUG"
INTERRUPTED = 130
# What a person may wait for, and a program may ask again after.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.05, 86400.0

T = TypeVar("T")

# Of standard input, output and errors those that the caller had closed: what is more than talk is
# not to go there.
closed: set[int] = set()


def run(command: click.Command, name: str) -> NoReturn:
    """Runs the command; whatever goes wrong is one line on stderr and an exit status."""
    fill_standard_streams()
    try:
        result = command.main(prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone (`preswapctl list | head`).
        leave(1)
    except BaseException as error:
        leave(report(error, name))
    leave(result if isinstance(result, int) else 0)


def leave(status: int) -> NoReturn:
    """What a stream did not take goes nowhere: a complaint at exit would change the status.

    So would Ctrl-C while Python tidies up.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    # Python would look for cycles among all that was imported, to free what ends with the process:
    # 13 of the 85 ms of processor time that a short command takes.
    gc.freeze()
    sys.exit(status)


def fill_standard_streams() -> None:
    """Where the caller closed one (`>&-`), what is said goes nowhere; nbdkit needs all three.

    What is said may name a file whose name is no text: that goes out as the bytes that it is.
    """
    opened = os.open(os.devnull, os.O_RDWR)
    while opened <= 2:
        closed.add(opened)
        os.set_inheritable(opened, True)
        opened = os.open(os.devnull, os.O_RDWR)
    os.close(opened)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")


def report(error: BaseException, name: str) -> int:
    """Says in one line what went wrong; the exit status for it."""
    if os.environ.get(DEBUG_VARIABLE):
        sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    message, status = sentence(error)
    # Where the message cannot be written, the exit status still tells.
    with suppress(OSError):
        click.echo(f"{prefix(ERROR)}{name}: {message}", err=True)
    return status


def sentence(error: BaseException) -> tuple[str, int]:
    if isinstance(error, click.UsageError):
        if place := place_before(error):
            return place, UsageError.exit_status
        path = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return one_line(error.format_message()) + path, UsageError.exit_status
    if isinstance(error, click.ClickException):
        return one_line(error.format_message()), error.exit_code
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, PreswapError):
        return one_line(str(error)), error.exit_status
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}", PreswapError.exit_status
    kind = type(error).__name__
    return (
        f"internal error, {kind}: {one_line(str(error))} ({DEBUG_VARIABLE}=1 shows where)",
        PreswapError.exit_status,
    )


def place_before(error: click.UsageError) -> str | None:
    """Where an option belongs that the group has and its command has not (`list --json`)."""
    command = error.ctx
    if not isinstance(error, click.NoSuchOption) or command is None or command.parent is None:
        return None
    group, name = command.parent, error.option_name
    for option in group.command.params:
        if isinstance(option, click.Option) and name in option.opts:
            value = "" if option.is_flag else f" {option.type.name.upper()}"
            return (
                f"{name} goes before the command:"
                f" {group.command_path} {name}{value} {command.info_name}"
            )
    return None


def one_line(text: str) -> str:
    return " ".join(text.split())


# Newer releases of click have a generic ParamType, the oldest that will do has not.
class Reader(click.ParamType, Generic[T]):  # type: ignore[type-arg]
    """The type of an option or argument: `parse` with its complaint turned into click's.

    `name` is what `--help` calls the value.  A file or directory is completed by the shell, for
    other values the command that runs may have a method `suggest`.
    """

    def __init__(self, name: str, parse: Callable[[str], T], path: str | None = None) -> None:
        self.name = name
        self.parse = parse
        self.path = path

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> T:
        try:
            return self.parse(value)
        except (ValueError, PreswapError) as error:
            raise click.BadParameter(str(error), ctx, param) from None

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        if self.path is not None:
            return [CompletionItem(incomplete, type=self.path)]
        suggest = getattr(ctx.find_root().command, "suggest", None)
        values: list[str] = suggest(self.name, ctx) if suggest else []
        return [CompletionItem(value) for value in values if value.startswith(incomplete)]


def parse_seconds(text: str, hint: str = "") -> float:
    """`hint` goes into the complaint about a text that is not a number."""
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number of seconds{hint}") from None
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:  # nor is "nan"
        raise ValueError(f"{text!r} must be {SHORTEST_SECONDS} to {LONGEST_SECONDS:.0f} seconds")
    return seconds


DIRECTORY = Reader("dir", parse_path, path="dir")
FILE = Reader("file", parse_path, path="file")
SIZE = Reader("size", parse_size)
PAGES = Reader("n", parse_pages)
SECONDS = Reader("seconds", parse_seconds)
AGE = Reader("age", parse_duration)
DEVICE = Reader("dev", check_device_name)
IMAGE = Reader("image", check_device_name)
# Either: what an NBD client may name.
EXPORT = Reader("export", check_device_name)
INSTANCE = Reader("name", check_instance_name)
# A virtual machine, by its instance's name or its device's.
MACHINE = Reader("instance|dev", str)
SYSCTL_KEY = Reader("key", str)
