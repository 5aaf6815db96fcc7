# SPDX-License-Identifier: BSD-3-Clause
"""On which line of a TOML text each key stands, which tomllib does not tell."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

# Where a value stands in a file: its key, or its tables and key.
At = tuple[str, ...]

# The pieces in which a line's end or a bracket means something else than outside of them, and then
# line ends, brackets and all the rest.  Three quotes may close behind one or two that belong to the
# text.
TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|#[^\n]*"
    r"|[\n\[\]{}]"
    r"|[^\n\[\]{}\"'#]+",
    re.DOTALL,
)
DEPTH = {"[": 1, "{": 1, "]": -1, "}": -1}
# No key of a configuration lies deeper: [device.NAME] has the deepest.
MOST_PARTS = 3


def lines_of(text: str) -> dict[At, int]:
    """The line on which each key and table is first named, of a text that tomllib has read.

    Reads the text once: a configuration of 511 devices has thousands of lines.
    """
    lines: dict[At, int] = {}
    table: At = ()
    for line, statement in statements(text):
        found = keys_of(statement)
        is_header = statement.lstrip().startswith("[")
        for at in found:
            lines.setdefault(at if is_header else (*table, *at), line)
        if is_header and found:
            table = found[-1]
    return lines


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Each assignment and each table's header with the line it begins on, also empty lines."""
    line, depth, parts = 1, 0, list[str]()
    for token in TOKEN.findall(text):
        parts.append(token)
        depth += DEPTH.get(token, 0)
        if token == "\n" and depth == 0:
            statement = "".join(parts)
            yield line, statement
            line, parts = line + statement.count("\n"), []
    yield line, "".join(parts)


def keys_of(statement: str) -> list[At]:
    """Every key that one statement names, from the outermost table inwards."""
    try:
        return list(paths(tomllib.loads(statement), MOST_PARTS))
    except RecursionError:  # of a value that tomllib could just read, with fewer calls above it
        return []


def paths(table: Mapping[str, Any], most: int) -> Iterator[At]:
    for key, value in table.items():
        yield (key,)
        if isinstance(value, dict) and most > 1:
            yield from ((key, *inner) for inner in paths(value, most - 1))
