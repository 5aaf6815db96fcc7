# SPDX-License-Identifier: BSD-3-Clause
"""The file of keys that both ends have.  GnuTLS reads it anew for each client, and finds what is
wrong in it only then."""

import re
from collections.abc import Iterator

LINE = re.compile(r"[^:\s][^:]*:(?:[0-9a-fA-F]{2})+")
# 128 bits.
FEWEST_DIGITS = 32


def lines_in(text: str) -> Iterator[tuple[int, str]]:
    """Those that are meant to have a key, with their numbers."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.startswith("#"):
            yield number, line


def fault_in(text: str) -> str | None:
    """To be said behind the file's name.  No word of the line: it holds a key."""
    found = list(lines_in(text))
    if not found:
        return " has no key: write a line NAME:KEY for each client"
    for number, line in found:
        if not LINE.fullmatch(line):
            return f":{number}: a line is NAME:KEY, and KEY an even number of hexadecimal digits"
        if len(line.rpartition(":")[2]) < FEWEST_DIGITS:
            return (
                f":{number}: the key is too short to keep anybody out: make one with"
                " openssl rand -hex 32"
            )
    return None


def names_twice(text: str) -> list[str]:
    """Of each the first line counts, and no other."""
    names = [line.partition(":")[0] for _, line in lines_in(text)]
    return sorted({name for name in names if names.count(name) > 1})
