# SPDX-License-Identifier: BSD-3-Clause
"""What `sysctl` is told: keys and assignments, as words of its command or as lines of a file."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from preswapd.errors import PreswapError, UsageError

STANDARD_INPUT = Path("-")
# As sysctl.conf(5) has them: what begins a comment, and a line that may fail.
COMMENTS = ("#", ";")
MAY_FAIL = "-"


class Assignment(NamedTuple):
    """`key` or `key=value`.  `place`: FILE:LINE, where a file says it."""

    key: str
    value: str | None
    place: str | None = None
    may_fail: bool = False

    @classmethod
    def parse(cls, text: str, place: str | None = None) -> "Assignment":
        key, assigned, value = (part.strip() for part in text.partition("="))
        if not key:
            raise UsageError("an assignment is one word: KEY=VALUE")
        return cls(key, value if assigned else None, place)

    def placed(self, error: PreswapError) -> PreswapError:
        """The complaint, with the line that it is about."""
        if self.place:
            error.args = (f"{self.place}: {error}",)
        return error


def of_files(paths: Iterable[Path]) -> Iterator[Assignment]:
    """OSError for one that cannot be read, UsageError for a line that is no assignment."""
    for path in paths:
        for number, line in enumerate(text_of(path).splitlines(), 1):
            said = line.strip()
            if said and not said.startswith(COMMENTS):
                yield of_line(said, f"{path}:{number}")


def of_line(said: str, place: str) -> Assignment:
    found = Assignment.parse(said.removeprefix(MAY_FAIL), place) if "=" in said else None
    if found is None or not found.value:
        raise UsageError(f"{place}: a line is KEY = VALUE")
    return found._replace(may_fail=said.startswith(MAY_FAIL))


def text_of(path: Path) -> str:
    if path == STANDARD_INPUT:
        return sys.stdin.read()
    try:
        # An editor may have put a byte-order mark before the first line.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text") from None
