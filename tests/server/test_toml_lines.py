# SPDX-License-Identifier: BSD-3-Clause
"""On which line a key stands."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.server.config.toml_lines import At, lines_of

TEXT = """\
# a comment
pool-size = "1G"

[device.g1]
size = "64M"

[device]
g2.size = "64M"
g3 = { size = "64M" }
names = [
  "a",
  "b",
]
late = 1
"""
# Lines of which many, but not all, sequences are a text.
TEXT_PIECES = (
    "# [c]",
    "",
    "a = 1",
    'b = "# [" # "',
    "'b.b' = '\"'",
    'c = """',
    '"""',
    "d = [",
    "{ e = 1 },",
    "]",
    "[f]",
    "[f.g]",
    "[[h]]",
    "f.g.i = { j = 1 }",
    "\t[ 'k l' . m ]",
)


def line_of(text: str, *at: str) -> int:
    return lines_of(text)[at]


def test_first_level() -> None:
    assert line_of(TEXT, "pool-size") == 2


def test_table() -> None:
    assert line_of(TEXT, "device", "g1") == 4


def test_key_in_table() -> None:
    assert line_of(TEXT, "device", "g1", "size") == 5


def test_dotted_key() -> None:
    assert line_of(TEXT, "device", "g2", "size") == 8


def test_inline_table() -> None:
    assert line_of(TEXT, "device", "g3", "size") == 9


def test_value_over_several_lines() -> None:
    assert line_of(TEXT, "device", "names") == 10


def test_key_behind_it() -> None:
    assert line_of(TEXT, "device", "late") == 14


def test_other_line_ends_are_text() -> None:
    assert line_of("# \u2028 \x85\na = 1\n", "a") == 2


@pytest.mark.parametrize(
    "value",
    [
        '"""\n[x]\nlate = 2\n"""',
        '"""\\"""\nlate = 2\n"""""',
        "'''\n\"\nlate = 2\n'''''",
        "[\"#\", '[', # ]\nlate\n]".replace("late", '"late = 2"'),
        '{ a = "}", b = [\n1] }',
        "'\\'\n",
        '"\\""\n',
    ],
)
def test_brackets_and_quotes_within_a_value(value: str) -> None:
    text = f"first = {value}\nlate = 1\n"
    tomllib.loads(text)
    assert line_of(text, "late") == text.count("\n")


@given(st.lists(st.sampled_from(TEXT_PIECES), max_size=12).map("\n".join))
def test_agrees_with_reading_line_by_line(text: str) -> None:
    """The slow way that needs to know nothing of TOML: the first lines that have the key."""
    try:
        tomllib.loads(text)
    except ValueError:
        return
    for at, line in lines_of(text).items():
        lines = text.split("\n")
        assert not has(lines[: line - 1], at)
        # A value that goes on is complete only on a later line.
        assert has(lines[:line], at) is not False


def has(lines: list[str], at: At) -> bool | None:
    """None where the lines are no whole text."""
    try:
        tables: object = tomllib.loads("\n".join(lines))
    except ValueError:
        return None
    for key in at:
        if not isinstance(tables, dict) or key not in tables:
            return False
        tables = tables[key]
    return True
