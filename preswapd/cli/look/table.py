# SPDX-License-Identifier: BSD-3-Clause
"""Tables for people and scripts: columns with a meaning, chosen by name."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from preswapd.cli.look.rows import Subject
from preswapd.errors import UsageError
from preswapd.units import format_size

Value = str | int | float | None

# What has no value: a ratio of nothing, a rate at the first look.
NONE = "-"
# As in "123.4M".
SIZE_WIDTH = 6


class Kind(Enum):
    """What a column's values are, and so how they are written."""

    TEXT = "text"
    SIZE = "bytes"
    COUNT = "a number"
    RATE = "per second"
    PERCENT = "%"
    RATIO = "to 1"
    SECONDS = "seconds"


class Column(NamedTuple):
    """`help` is its definition, which `--help`, the manual page and docs/watching.md repeat."""

    name: str
    help: str
    kind: Kind
    value: Callable[[Subject], Value]

    def text(self, subject: Subject, *, exact: bool = False) -> str:
        return written(self.kind, self.value(subject), exact)


Columns = Sequence[Column]


def written(kind: Kind, value: Value, exact: bool) -> str:
    if value is None:
        return NONE
    if isinstance(value, str):
        return value
    match kind:
        case Kind.SIZE:
            return str(int(value)) if exact else format_size(int(value))
        case Kind.RATE:
            return f"{value:.1f}" if exact or 0 < value < 9.95 else f"{value:.0f}"
        case Kind.PERCENT:
            return f"{value:.1f}"
        case Kind.RATIO:
            return f"{value:.2f}"
        case Kind.SECONDS:
            return f"{value:.6f}" if exact else short_time(value)
        case _:
            return str(value)


def short_time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f}us"
    return f"{seconds * 1e3:.1f}ms" if seconds < 1 else f"{seconds:.1f}s"


def choose(columns: Columns, default: Sequence[str], wanted: str | None) -> list[Column]:
    """The columns that `--output` names; "+A,B" are the default ones and these."""
    by_name = {column.name: column for column in columns}
    names = [name.strip().upper() for name in (wanted or "").split(",")] if wanted else []
    chosen = [] if names and not names[0].startswith("+") else list(default)
    for name in (name.removeprefix("+") for name in names):
        if name not in by_name:
            raise UsageError(f"unknown column {name!r}: the choices are {', '.join(by_name)}")
        if name not in chosen:
            chosen.append(name)
    return [by_name[name] for name in chosen]


class Style(NamedTuple):
    """How a table is printed."""

    output: str | None = None
    raw: bool = False
    exact: bool = False
    headings: bool = True

    @property
    def is_default(self) -> bool:
        return self == Style()


def check_style(style: Style, *, as_json: bool) -> None:
    """UsageError for options of tables where JSON was asked for."""
    if as_json and not style.is_default:
        raise UsageError(
            "--output, --raw, --bytes and --noheadings are for tables: JSON has all figures"
        )


class TextTable:
    """Lines of cells; later rows keep to the widths of the earlier ones where they can."""

    def __init__(self, columns: Columns, style: Style, *, grows: bool = False) -> None:
        """`grows`: more rows come later, and should find room."""
        self.columns = columns
        self.style = style
        room = SIZE_WIDTH if grows and not style.exact else 0
        self.widths = [
            max(len(column.name), room if column.kind is Kind.SIZE else 0) for column in columns
        ]

    def lines(self, subjects: Iterable[Subject], *, headings: bool = True) -> Iterator[str]:
        rows = [
            [column.text(subject, exact=self.style.exact) for column in self.columns]
            for subject in subjects
        ]
        if headings and self.style.headings:
            rows.insert(0, [column.name for column in self.columns])
        if self.style.raw:
            yield from (" ".join(row) for row in rows)
            return
        self.fit(rows)
        for row in rows:
            yield "  ".join(self.cells(row)).rstrip()

    def print(self, subjects: Iterable[Subject]) -> None:
        for line in self.lines(subjects):
            click.echo(line)

    def fit(self, rows: list[list[str]]) -> None:
        for row in rows:
            self.widths = [
                max(have, len(cell)) for have, cell in zip(self.widths, row, strict=True)
            ]

    def cells(self, row: list[str]) -> Iterator[str]:
        """The first column to the left, the others, which are figures, to the right."""
        for number, (cell, width) in enumerate(zip(row, self.widths, strict=True)):
            yield cell.rjust(width) if number else cell.ljust(width)


class TableCommand(click.Command):
    """A command whose `--help` ends with what its columns mean."""

    tables: Sequence[tuple[str, Columns, Sequence[str]]] = ()

    def columns(self, context: click.Context) -> Columns:
        """Those that --output may name beside what else was given."""
        return self.tables[0][1]

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        for title, columns, default in self.tables:
            with formatter.section(f"{title} (* by default)"):
                formatter.write_dl(
                    [
                        (f"{column.name}{'*' if column.name in default else ''}", column.help)
                        for column in columns
                    ]
                )
        super().format_epilog(context, formatter)


class Names(click.ParamType):  # type: ignore[type-arg]  # as Reader in commandline.py
    """What --output takes: names of columns, a list or one more than the default ones."""

    name = "cols"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        command = ctx.command
        assert isinstance(command, TableCommand)
        before = incomplete[: max(incomplete.rfind(mark) for mark in ",+") + 1]
        begun = incomplete.removeprefix(before).upper()
        known = [column.name for column in command.columns(ctx)]
        return [CompletionItem(f"{before}{name}") for name in known if name.startswith(begun)]


def table_options(function: Callable[..., object]) -> Callable[..., object]:
    """The options that zramctl and lsblk have for their tables; Style takes their values."""
    for option in (
        click.option("-n", "--noheadings", is_flag=True, help="Print no headings."),
        click.option("-b", "--bytes", "exact", is_flag=True, help="Print sizes in bytes."),
        click.option("-r", "--raw", is_flag=True, help="Separate cells by one space, for scripts."),
        click.option(
            "-o",
            "--output",
            type=Names(),
            metavar="COLS",
            help="Columns to show, as NAME,USED; +NAME,USED adds to the default ones.",
        ),
    ):
        function = option(function)
    return function
