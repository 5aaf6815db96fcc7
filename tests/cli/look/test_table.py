# SPDX-License-Identifier: BSD-3-Clause
"""Tables: which columns, and how they are written."""

from pathlib import Path
from typing import Any, cast

import pytest

from preswapd.api.figures import Statistics
from preswapd.cli.look.columns import (
    DEVICE_COLUMNS,
    DEVICE_DEFAULT,
    DEVICE_RATES,
    DEVICE_WATCH,
    LATENCIES,
    POOL_COLUMNS,
    POOL_DEFAULT,
    POOL_RATES,
    POOL_WATCH,
)
from preswapd.cli.look.rows import Moment, Subject, devices_of, pool_of
from preswapd.cli.look.table import Column, Columns, Kind, Style, TextTable, choose, written
from preswapd.errors import UsageError

DOCUMENTED = (Path(__file__).parents[3] / "docs/watching.md").read_text()
LETTERS = [Column(name, "", Kind.COUNT, lambda row: row.figures["n"]) for name in "ABC"]


def subject(n: Any) -> Subject:
    return Subject("default", "g1", 0.0, {"n": n})


def names(columns: Columns) -> str:
    return "".join(column.name for column in columns)


# --- which ---


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, "A"),
        ("", "A"),
        ("b", "B"),
        ("C,A", "CA"),
        ("+C", "AC"),
        ("+c, B", "ACB"),
        ("+C,+B", "ACB"),
        ("+A", "A"),
        ("B,B", "B"),
    ],
)
def test_choose(wanted: str | None, chosen: str) -> None:
    assert names(choose(LETTERS, "A", wanted)) == chosen


@pytest.mark.parametrize("wanted", ["D", "A,", "+", "A B"])
def test_unknown_column_names_the_choices(wanted: str) -> None:
    with pytest.raises(UsageError, match="choices are A, B, C"):
        choose(LETTERS, "A", wanted)


@pytest.mark.parametrize(
    ("columns", "default"),
    [
        (DEVICE_COLUMNS, DEVICE_DEFAULT),
        ((*DEVICE_RATES, *DEVICE_COLUMNS), DEVICE_WATCH),
        (POOL_COLUMNS, POOL_DEFAULT),
        ((*POOL_RATES, *POOL_COLUMNS), POOL_WATCH),
    ],
)
def test_names_are_unique_and_defaults_exist(columns: Columns, default: tuple[str, ...]) -> None:
    assert len({column.name for column in columns}) == len(columns)
    assert names(choose(columns, default, None)) == "".join(default)
    assert all(column.help and column.name.isupper() for column in columns)


@pytest.mark.parametrize(
    ("columns", "default"),
    [
        (DEVICE_COLUMNS, DEVICE_DEFAULT),
        (POOL_COLUMNS, POOL_DEFAULT),
        (POOL_RATES, POOL_WATCH),
        (DEVICE_RATES, DEVICE_WATCH),
    ],
)
def test_the_documentation_says_the_same(columns: Columns, default: tuple[str, ...]) -> None:
    rows = [
        f"| {column.name}{'*' if column.name in default else ''} | {column.help} |\n"
        for column in columns
    ]
    assert "".join(rows) in DOCUMENTED


# --- how ---


@pytest.mark.parametrize(
    ("kind", "value", "text", "exact"),
    [
        (Kind.SIZE, 1536, "1.5K", "1536"),
        (Kind.COUNT, 1536, "1536", "1536"),
        (Kind.RATE, 0.0, "0", "0.0"),
        (Kind.RATE, 1.26, "1.3", "1.3"),
        (Kind.RATE, 1536.2, "1536", "1536.2"),
        (Kind.PERCENT, 99.96, "100.0", "100.0"),
        (Kind.RATIO, 2.875, "2.88", "2.88"),
        (Kind.SECONDS, 0.000042, "42us", "0.000042"),
        (Kind.SECONDS, 0.0042, "4.2ms", "0.004200"),
        (Kind.SECONDS, 4.2, "4.2s", "4.200000"),
        (Kind.SIZE, None, "-", "-"),
        (Kind.TEXT, "lz4", "lz4", "lz4"),
    ],
)
def test_written(kind: Kind, value: Any, text: str, exact: str) -> None:
    assert (written(kind, value, False), written(kind, value, True)) == (text, exact)


def test_table_is_aligned() -> None:
    rows = [subject(1), subject(1000)]
    assert list(TextTable(LETTERS[:2], Style()).lines(rows)) == [
        "A        B",
        "1        1",
        "1000  1000",
    ]


def test_raw_table_has_one_blank() -> None:
    table = TextTable(LETTERS[:2], Style(raw=True, headings=False))
    assert list(table.lines([subject(1), subject(1000)])) == ["1 1", "1000 1000"]


def test_rates_are_a_second_and_begin_anew_with_the_server() -> None:
    def moment(loads: int, clock: float, pid: int = 1) -> Moment:
        device = {"loads": loads, "disk_reads": 0, "quarantined": False, "compress": "lz4"}
        stats = {"instance": "a", "tmem": {}, "devices": {"g1": device}, "server": {"pid": pid}}
        return Moment(cast(Statistics, stats), clock, 0.0)

    (row,) = devices_of(moment(30, 12.0), moment(10, 10.0))
    assert row.rates == {"loads": 10.0, "disk_reads": 0.0}
    (row,) = devices_of(moment(30, 12.0, pid=2), moment(10, 10.0))
    assert row.rates is None
    (row,) = devices_of(moment(5, 12.0), moment(10, 10.0))
    assert row.rate("loads") == 0
    assert pool_of(moment(30, 12.0), moment(10, 10.0)).rate("loads") == 10


@pytest.mark.parametrize(
    ("figures", "text"),
    [
        ({"latency": {"read": {"p50": 0.00001, "p99": 0.002}}}, "10us 2.0ms"),
        ({"latency": {"read": [1, 2]}}, "- -"),
        ({"latency": 3}, "- -"),
        ({}, "- -"),
    ],
)
def test_latency_where_there_is_one(figures: dict[str, Any], text: str) -> None:
    row = Subject("default", "g1", 0.0, figures)
    assert " ".join(column.text(row) for column in LATENCIES) == text
