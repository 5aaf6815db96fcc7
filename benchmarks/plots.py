# SPDX-License-Identifier: BSD-3-Clause
"""The few plots that say it at a glance: PNG files that are readable at the README's width."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import sections
from benchmarks.groups import (
    LZ4,
    MEMORY,
    MEMORY_ZSTD,
    MIXED,
    READ_1,
    READ_16,
    SWAP_IN,
    SWAP_OUT,
    TIGHT,
    WRITE_1,
    WRITE_16,
    ZSTD,
)
from benchmarks.ratios import load_of, ratio
from benchmarks.sections import Figures

INCHES, DPI = (8.0, 4.2), 110
LOADS = (READ_1, WRITE_1, READ_16, WRITE_16, SWAP_IN, SWAP_OUT, MIXED)
SERVERS = (LZ4, LZ4 + TIGHT, ZSTD, MEMORY_ZSTD, "nbdkit file, tmpfs", "qemu-nbd, tmpfs")
OURS_COLOURS = ("#1f5fa8", "#7fb0e0", "#2e8b57")
PEERS_COLOURS = ("#b0b0b0", "#d0d0d0", "#8a8a8a")


def draw_all(figures: Figures, folder: Path) -> list[Path]:
    """Everything that the sections of this run have a plot for."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, of_section in figures.items():
        if name == "loads":
            drawn += loads(of_section, folder)
        elif name == "pages":
            drawn += density(of_section, folder)
        elif section := sections.load(name):
            drawn += sections.plot(section, of_section, folder)
    return drawn


def loads(figures: Figures, folder: Path) -> list[Path]:
    """Requests a second, by load and server, to the best of nbdkit's memory plugin."""
    measured = {load.name: load_of(figures, "warm", load.name) for load in LOADS}
    named = [name for name, by_server in measured.items() if by_server]
    if not named:
        return []
    figure, axes = canvas()
    heights = {
        server: [ratio(measured[name], server, MEMORY) or 0.0 for name in named]
        for server in SERVERS
    }
    bars(axes, named, heights, (*OURS_COLOURS, *PEERS_COLOURS))
    axes.axhline(1.0, color="black", linewidth=1)
    axes.set_ylabel("requests/s, nbdkit memory = 1")
    axes.set_title("Speed beside RAM behind NBD, which does not compress")
    return [saved(figure, folder / "loads.png")]


def density(figures: Figures, folder: Path) -> list[Path]:
    """How many bytes of real pages a byte of host memory holds."""
    size = figures["contents"]["pages"] * 4096
    codecs = list(figures["preswapd"])
    heights = {
        "preswapd, all memory": [
            size / (one["mem_used_total"] + one["metadata_size"])
            for one in figures["preswapd"].values()
        ]
    }
    if zram := figures["zram"]:
        heights["zram, all memory"] = [size / zram[codec]["kernel_memory"] for codec in codecs]
        heights["zram, pages alone"] = [size / zram[codec]["mem_used_total"] for codec in codecs]
    figure, axes = canvas()
    bars(axes, codecs, heights, (OURS_COLOURS[0], PEERS_COLOURS[2], PEERS_COLOURS[1]))
    axes.set_ylabel("bytes of pages in a byte of the host")
    axes.set_title("Pages of real programs")
    return [saved(figure, folder / "density.png")]


def canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def bars(
    axes: Axes, names: Sequence[str], heights: dict[str, list[float]], colours: Sequence[Any]
) -> None:
    """A group of bars for each name, one bar for each of the heights' keys."""
    width = 0.8 / len(heights)
    for number, (label, values) in enumerate(heights.items()):
        places = [at + (number - (len(heights) - 1) / 2) * width for at in range(len(names))]
        drawn = axes.bar(places, values, width, label=label, color=colours[number])
        if len(names) * len(heights) <= 12:
            axes.bar_label(drawn, fmt="%.2f", fontsize=8)
    axes.set_xticks(
        range(len(names)), [wrapped(name.replace(", depth 16", "")) for name in names], fontsize=8
    )
    axes.legend(fontsize=8, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)


def wrapped(name: str) -> str:
    """Two lines or more, so that neighbours do not run into each other."""
    lines = [""]
    for word in name.split():
        if len(lines[-1]) + len(word) > 11 and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path
