"""On which line of a TOML text a key stands, which tomllib does not tell."""

import tomllib
from collections.abc import Sequence


def line_of(text: str, keys: Sequence[str]) -> int:
    """The line on which the value of a key begins, for a key of a text that tomllib has read.

    The key stands where it first appears when the text is read line by line.  A value over several
    lines is complete only on its last one: it began behind the last line where all was complete.
    """
    lines = text.split("\n")  # nothing else ends a line of TOML
    complete = 0
    for number in range(1, len(lines) + 1):
        try:
            tables = tomllib.loads("\n".join(lines[:number]))
        except (ValueError, RecursionError):
            continue
        if holds(tables, keys):
            return complete + 1
        complete = number
    return len(lines)


def holds(tables: object, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(tables, dict) or key not in tables:
            return False
        tables = tables[key]
    return True
