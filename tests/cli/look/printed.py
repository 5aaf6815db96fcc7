# SPDX-License-Identifier: BSD-3-Clause
"""What a command printed, taken apart."""


def rows(text: str) -> list[dict[str, str]]:
    """The rows of a table that was printed with --raw: each one's cells by column."""
    head, *lines = (line.split(" ") for line in text.splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]
