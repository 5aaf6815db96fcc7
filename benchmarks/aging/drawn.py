# SPDX-License-Identifier: BSD-3-Clause
"""The plots of the section `aging`: reads from memory over time."""

from pathlib import Path
from typing import Any

from benchmarks.aging.contenders import FILE
from benchmarks.aging.shown import shares_of
from benchmarks.sections import Figures

INCHES, DPI = (8.0, 3.2), 110
COLOURS = ("#1f5fa8", "#b0b0b0")


def plot(figures: Figures, folder: Path) -> list[Path]:
    """A file for each pattern."""
    found = figures.get("patterns", {}).get("found", {})
    return [
        over_time(pattern, folder / f"aging-{name.replace(' ', '-')}.png")
        for name, pattern in found.items()
    ]


def over_time(pattern: dict[str, Any], path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    windows = pattern["shown"]
    all_axes = figure.subplots(1, len(windows), sharey=True, squeeze=False)[0]
    for axes, window in zip(all_axes, windows, strict=True):
        # A plain file's reads never come from memory.
        contenders = [name for name in pattern["runs"] if name != FILE]
        for name, colour in zip(contenders, COLOURS, strict=False):
            shares = shares_of(pattern["runs"][name][window]["series"])
            axes.plot(*zip(*shares, strict=True), label=name, color=colour)
        axes.set_title(window, fontsize=9)
        axes.set_xlabel("seconds", fontsize=8)
        axes.set_ylim(0, 102)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[0].set_ylabel("reads from memory, %")
    all_axes[-1].legend(fontsize=8, loc="lower right")
    figure.suptitle(pattern["title"], fontsize=10)
    figure.savefig(path)
    return path
