# SPDX-License-Identifier: BSD-3-Clause
"""Figures as people read them."""

from collections.abc import Sequence

MIB = 1 << 20


def columns(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column on the left, the others on the right."""
    lines = [heads, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    return "\n".join([title, *(f"  {aligned(line, widths)}" for line in lines)])


def aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([first, *others]).rstrip()


def mib(size: float) -> str:
    return f"{size / MIB:.1f}"
