# SPDX-License-Identifier: BSD-3-Clause
"""`save` and `restore` beside nbdcopy, which moves the same pages without compressing them.

All files lie in memory, so that no disk is measured; pages that the device has on disk are in the
page cache.  nbdcopy takes each device's whole content, as zeros where nothing is known.
"""

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.capture import captured
from benchmarks.moving.ends import (
    COPIES,
    DEVICE,
    QUICK_COPIES,
    QUICK_ROUNDS,
    ROUNDS,
    Ends,
    both,
    client_of,
    ctl,
    empty,
    fill,
    held,
    run,
)
from benchmarks.sections import Figures, Progress
from benchmarks.servers import Running
from benchmarks.text import MIB, columns

CODECS = ("lz4", "zstd")
IN_MEMORY, ON_DISK = "in memory", "on disk"


def raw(ends: Ends) -> Path:
    return ends.folder / "raw"


def save(ends: Ends) -> Path:
    return ends.folder / "save"


def measure(progress: Progress, quick: bool) -> Figures:
    pages, contents = captured(quick, progress)
    copies, rounds = (QUICK_COPIES, QUICK_ROUNDS) if quick else (COPIES, ROUNDS)
    size = copies * pages.stat().st_size
    found = {}
    for codec in CODECS:
        with both(codec, size) as ends:
            for place in (IN_MEMORY, ON_DISK):
                progress(f"{codec}, pages {place}")
                fill(ends.source, pages, copies)
                if place == ON_DISK:
                    shrink(ends.source)
                found[f"{codec}, {place}"] = {
                    "seconds": timed_rounds(ends, rounds, progress),
                    "save_bytes": save(ends).stat().st_size,
                }
    return {"bytes": size, "programs": contents["programs"], "of": found}


def shrink(serving: Running) -> None:
    # What is read from disk would come back to memory.
    run(serving, "freeze")
    with client_of(serving).shrink(0) as moving:
        moving.wait(lambda step: None)


def timed_rounds(ends: Ends, rounds: int, progress: Progress) -> dict[str, list[float]]:
    """Seconds of each command, in turns."""
    found: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds):
        for name, command in COMMANDS.items():
            progress(f"{name}: {number + 1} of {rounds}")
            begun = time.monotonic()
            command(ends)
            found[name].append(time.monotonic() - begun)
            if name in (RESTORE, LINE):
                check(ends)
            if name in COMING:
                empty(ends.target)
    return found


def check(ends: Ends) -> None:
    """What came is what left, as far as its number says."""
    left, came = held(ends.source), held(ends.target)
    if left != came:
        raise RuntimeError(f"{left} pages left, and {came} came")


def copied_out(ends: Ends) -> None:
    subprocess.run(["nbdcopy", ends.source.uri, str(raw(ends))], check=True)


def copied_in(ends: Ends) -> None:
    subprocess.run(["nbdcopy", str(raw(ends)), ends.target.uri], check=True)


def saved(ends: Ends) -> None:
    run(ends.source, "save", DEVICE, str(save(ends)), "--yes")


def restored(ends: Ends) -> None:
    run(ends.target, "restore", DEVICE, str(save(ends)))


def in_one_line(ends: Ends) -> None:
    with subprocess.Popen(
        ctl(ends.source, "save", DEVICE, "-"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as saving:
        command = ctl(ends.target, "restore", DEVICE, "-")
        subprocess.run(command, check=True, stdin=saving.stdout, stdout=subprocess.DEVNULL)
    if saving.returncode:
        raise RuntimeError("the save failed")


COPY_OUT, SAVE = "nbdcopy to a file", "save to a file"
COPY_IN, RESTORE = "nbdcopy from it", "restore from it"
LINE = "save | restore"
COMMANDS: dict[str, Callable[[Ends], None]] = {
    COPY_OUT: copied_out,
    SAVE: saved,
    COPY_IN: copied_in,
    RESTORE: restored,
    LINE: in_one_line,
}
COMING = (COPY_IN, RESTORE, LINE)


def table(figures: Figures) -> str:
    size = figures["bytes"]
    rows = [row(name, found, size) for name, found in figures["of"].items()]
    rounds = len(next(iter(figures["of"].values()))["seconds"][SAVE])
    title = f"MiB/s of pages, {size / MIB:.0f} MiB of real ones, medians of {rounds}"
    heads = ("", *COMMANDS, "save / nbdcopy", "restore / nbdcopy", "file / pages")
    return columns(title, heads, rows)


def row(name: str, found: dict[str, Any], size: int) -> Sequence[str]:
    seconds = {command: statistics.median(found["seconds"][command]) for command in COMMANDS}
    ratios = (seconds[COPY_OUT] / seconds[SAVE], seconds[COPY_IN] / seconds[RESTORE])
    density = found["save_bytes"] / size
    rates = (f"{size / MIB / seconds[command]:.0f}" for command in COMMANDS)
    return (name, *rates, *(f"{ratio:.2f}" for ratio in ratios), f"{density:.2f}")
