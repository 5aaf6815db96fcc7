# SPDX-License-Identifier: BSD-3-Clause
"""Shares by size: read off between their points, and drawn as SVG."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from math import log2
from typing import NamedTuple

from preswapd.units import format_size


class Point(NamedTuple):
    size: int
    share: float


# With rising sizes.
Curve = Sequence[Point]

WIDTH, HEIGHT, LEFT, TOP, APART = 640, 240, 48, 64, 72
COLOURS = ("#1f5fa8", "#d98c3f")


def share_at(curve: Curve, size: int) -> float:
    """On the line between two points; from 0 on before the first, and no more behind the last."""
    at = bisect_right(curve, size, key=lambda point: point.size)
    before = curve[at - 1] if at else Point(0, 0.0)
    if at == len(curve):
        return before.share
    after = curve[at]
    part = (size - before.size) / (after.size - before.size)
    return before.share + part * (after.share - before.share)


def drawn(title: str, panels: Mapping[str, Sequence[Curve]]) -> str:
    """One panel below the other, each with a heading; sizes by their logarithms."""
    height = TOP + len(panels) * (HEIGHT + APART)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 2 * LEFT}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{title}</text>',
    ]
    for number, (heading, curves) in enumerate(panels.items()):
        lines += panel(TOP + number * (HEIGHT + APART), heading, curves)
    return "\n".join([*lines, "</svg>", ""])


def panel(top: int, heading: str, curves: Sequence[Curve]) -> Iterator[str]:
    sizes = [max(point.size, 1) for curve in curves for point in curve]
    # Whole doublings, and one at least.
    first = int(log2(min(sizes)))
    last = max(int(log2(max(sizes))) + 1, first + 1)

    def x(size: int) -> float:
        return round(LEFT + (log2(max(size, 1)) - first) / (last - first) * WIDTH, 1)

    def y(share: float) -> float:
        return round(top + (1 - share) * HEIGHT, 1)

    yield f'<text x="{LEFT}" y="{top - 10}">{heading}</text>'
    for tenth in range(0, 11, 2):
        at = y(tenth / 10)
        yield f'<path d="M{LEFT} {at}h{WIDTH}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{tenth * 10}</text>'
    for power in range(first, last + 1):
        size = format_size(1 << power)
        yield (
            f'<text x="{x(1 << power)}" y="{top + HEIGHT + 18}" text-anchor="middle">{size}</text>'
        )
    for curve, colour in zip(curves, COLOURS, strict=False):
        points = " ".join(f"{x(point.size)},{y(point.share)}" for point in curve)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
