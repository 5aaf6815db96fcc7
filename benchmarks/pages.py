# SPDX-License-Identifier: BSD-3-Clause
"""Section `pages`: how dense pages of real programs are stored, beside zram with the same codec.

The same file of pages goes over NBD into preswapd and, in a real guest, into zram.  preswapd's
memory is all of it, index and maps included; zram's `mem_used_total` leaves its tables out, so the
ratio to it is the strict one, and the guest's free memory shows what they come to.
"""

from pathlib import Path
from typing import Any

from benchmarks import codecs, storing, zram
from benchmarks.capture import captured
from benchmarks.sections import Figures, Progress
from benchmarks.servers import preswapd, running
from benchmarks.text import columns, mib
from preswapd.guest.faults import GuestError

CODECS = ("lz4", "zstd")
# For the device: what a guest would have for so many pages.
ROOM = 2 * storing.START


def measure(progress: Progress, quick: bool) -> Figures:
    file, contents = captured(quick, progress)
    ours = {}
    for codec in CODECS:
        progress(f"storing {contents['pages']} pages with {codec}")
        ours[codec] = stored(file, codec)
    progress("storing the same pages in a guest's zram")
    theirs: dict[str, dict[str, int]] = {}
    missing = ""
    try:
        theirs = zram.measure(file, CODECS)
    except GuestError as error:
        missing = str(error)
    speeds = {}
    for codec in ("none", *CODECS):
        progress(f"timing the store with {codec}")
        speeds[codec] = codecs.measure(file, codec)
    return {
        "contents": contents,
        "preswapd": ours,
        "zram": theirs,
        "zram_missing": missing,
        "ratio_to_zram": {
            codec: host_bytes(ours[codec]) / theirs[codec]["mem_used_total"] for codec in theirs
        },
        "microseconds": speeds,
    }


def stored(file: Path, codec: str) -> dict[str, int]:
    """The pool's counters with the pages of the file in it, and seen to be the same."""
    size = file.stat().st_size + ROOM
    with running(preswapd(codec, size=str(size))) as serving:
        storing.write(serving, file)
        tmem = storing.at_rest(serving)
        storing.check(serving, file)
        return tmem


def host_bytes(tmem: dict[str, int]) -> int:
    """All that the host gives for the pages."""
    return tmem["mem_used_total"] + tmem["metadata_size"]


def table(figures: Figures) -> str:
    return "\n\n".join([density(figures), speed(figures)])


def density(figures: Figures) -> str:
    programs = figures["contents"]["programs"]
    size = figures["contents"]["pages"] * 4096
    title = "Real pages: " + ", ".join(f"{count} of {name}" for name, count in programs.items())
    rows = []
    for codec, ours in figures["preswapd"].items():
        rows.append(row(f"preswapd {codec}", ours, host_bytes(ours), size, figures, codec))
        if theirs := figures["zram"].get(codec):
            rows.append(zram_row(f"zram {codec}", theirs, theirs["mem_used_total"], size))
            everything = {**theirs, "compr_data_size": 0, "same_pages": 0}
            rows.append(zram_row("  with its tables", everything, theirs["kernel_memory"], size))
    heads = ("", "compressed MiB", "host MiB", "pages to host", "to zram", "same-filled")
    missing = figures["zram_missing"]
    return columns(title, heads, rows) + (f"\nzram was not measured: {missing}" if missing else "")


def row(
    name: str, ours: dict[str, int], used: int, size: int, figures: Figures, codec: str
) -> list[str]:
    against = figures["ratio_to_zram"].get(codec)
    return [
        name,
        mib(ours["compr_data_size"]),
        mib(used),
        f"{size / used:.2f}",
        "" if against is None else f"{against:.3f}",
        str(ours["same_filled_pages"]),
    ]


def zram_row(name: str, theirs: dict[str, Any], used: int, size: int) -> list[str]:
    compressed, same = theirs["compr_data_size"], theirs["same_pages"]
    return [
        name,
        mib(compressed) if compressed else "",
        mib(used),
        f"{size / used:.2f}",
        "",
        str(same) if same else "",
    ]


def speed(figures: Figures) -> str:
    rows = [
        [codec, *(f"{times[step]:.2f}" for step in ("first_put", "put", "get"))]
        for codec, times in figures["microseconds"].items()
    ]
    heads = ("", "first put", "put", "get")
    return columns("The store alone, microseconds of processor time a page", heads, rows)
