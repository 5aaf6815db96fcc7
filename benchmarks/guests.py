# SPDX-License-Identifier: BSD-3-Clause
"""The same jobs in a real guest with too little memory, by where it swaps to.

In the form of the published tables: memory at 100, 75 and 50 % of the jobs' working set; for each
way to swap time, the job's own figures, pages swapped, disk I/O, processor time and host memory.
The file in the page cache and zram get as much memory of the host as preswapd's guest took.

Without KVM the guest is emulated, and its own work costs some ten times of what it costs on a real
processor, while the host's side costs what it always costs.  Times of different swaps are then
nearer to each other than they would be: read processor time and disk I/O beside them.

    python -m benchmarks.guests [--quick]
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.guest_jobs import WORKING_SET, prepare
from benchmarks.guest_runs import Point, Run
from benchmarks.guest_swaps import ALL, Place, Preswapd, Swapping
from preswapd.guest.kernel import default_cache, find_kernel
from preswapd.guest.memory import memory_leaving

MIB = 1 << 20
# What programs and shells of this guest take before a job starts, with a little to spare.
BASE = 15 * MIB
ROUNDS = 3
# At 100 % nothing is swapped: one way to swap and one round show what there is to see.
POINTS: tuple[tuple[int, tuple[type[Swapping], ...], int], ...] = (
    (100, (Preswapd,), 1),
    (75, ALL[:-1], ROUNDS),
    (50, ALL, ROUNDS),
)


def measure(progress: Callable[[str], None], quick: bool) -> dict[str, Any]:
    """One round at 50 % when it must be quick."""
    begun = time.monotonic()
    runs: list[Run] = []
    points = []
    cache = default_cache()
    with tempfile.TemporaryDirectory(prefix="preswapd-bench-", dir="/var/tmp") as folder:
        progress("guests: what the jobs must come to")
        place = Place(find_kernel(cache), cache, prepare(Path(folder)), Path(folder))
        for percent, kinds, rounds in POINTS[-1:] if quick else POINTS:
            needed = BASE + WORKING_SET * percent // 100
            memory = memory_leaving(needed, place.kernel, cache)
            with Point(place, percent, memory, kinds, progress) as point:
                for number in range(1 if quick else rounds):
                    runs += point.round(str(number + 1))
                accelerators = {swapping.guest.accelerator for swapping in point.guests.values()}
            points.append(
                {
                    "percent": percent,
                    "guest_memory": memory,
                    "pool": point.budget.pool,
                    "left_out": point.left_out,
                }
            )
    return {
        "working_set": WORKING_SET,
        "accelerators": sorted(accelerators),
        "points": points,
        "runs": [asdict(run) for run in runs],
        "seconds": time.monotonic() - begun,
    }


# --- what is shown ---

# Key, heading, divisor, decimals.
COLUMNS = (
    ("seconds", "s", 1, 1),
    ("swapped_out", "k out", 1000, 1),
    ("swapped_in", "k in", 1000, 1),
    ("disk_written", "written MiB", MIB, 0),
    ("disk_read", "read MiB", MIB, 0),
    ("qemu_cpu", "QEMU cpu s", 1, 1),
    ("server_cpu", "server cpu s", 1, 1),
    ("host_memory", "host MiB", MIB, 0),
)
SERVED_COLUMNS = (
    ("requests_per_second", "k requests/s", 1000, 1),
    ("p50", "p50 us", 1, 1),
    ("p99", "p99 us", 1, 1),
)


def table(figures: dict[str, Any]) -> str:
    working_set = figures["working_set"] // MIB
    how = ", ".join(figures["accelerators"])
    lines = [f"In a guest ({how}) whose jobs need {working_set} MiB of memory; medians of the runs"]
    for point in figures["points"]:
        memory, pool = point["guest_memory"] // MIB, point["pool"] // MIB
        lines.append(
            f"  {point['percent']} %: guest of {memory} MiB; preswapd's pool took {pool} MiB"
        )
        lines += [f"    without {name}: {why}" for name, why in point["left_out"].items()]
    for job in unique(figures["runs"], "job"):
        lines += ["", *job_table(job, [run for run in figures["runs"] if run["job"] == job])]
    return "\n".join(lines)


def job_table(job: str, runs: list[dict[str, Any]]) -> list[str]:
    columns = COLUMNS + (SERVED_COLUMNS if runs[0]["p50"] is not None else ())
    widths = [max(len(heading), 7) for _, heading, _, _ in columns]
    headings = "  ".join(
        f"{heading:>{width}}" for (_, heading, _, _), width in zip(columns, widths, strict=True)
    )
    lines = [job, f"  {'memory':6}  {'swap':21}  {headings}"]
    for percent in unique(runs, "percent"):
        for swap in unique(runs, "swap"):
            same = [run for run in runs if (run["percent"], run["swap"]) == (percent, swap)]
            if same:
                cells = "  ".join(
                    f"{shown(same, key, divisor, decimals):>{width}}"
                    for (key, _, divisor, decimals), width in zip(columns, widths, strict=True)
                )
                lines.append(f"  {percent:4} %  {swap:21}  {cells}")
    return lines


def shown(runs: list[dict[str, Any]], key: str, divisor: int, decimals: int) -> str:
    found = median(runs, key)
    return "-" if found is None else f"{found / divisor:.{decimals}f}"


def median(runs: list[dict[str, Any]], key: str) -> float | None:
    found = [run[key] for run in runs if run[key] is not None]
    return statistics.median(found) if found else None


def unique(runs: list[dict[str, Any]], key: str) -> list[Any]:
    return list(dict.fromkeys(run[key] for run in runs))


def plot(figures: dict[str, Any], folder: Path) -> list[Path]:
    """Time of each job, and what it cost the host, by memory and way to swap."""
    drawn = (
        ("guests-seconds", "seconds", lambda runs: median(runs, "seconds")),
        (
            "guests-processor",
            "seconds of processor time, QEMU and server",
            lambda runs: total(runs, "qemu_cpu", "server_cpu"),
        ),
        (
            "guests-disk",
            "MiB read and written by the host's disk",
            lambda runs: total(runs, "disk_read", "disk_written") / MIB,
        ),
    )
    return [
        bars(figures["runs"], label, value, folder / f"{name}.png") for name, label, value in drawn
    ]


def total(runs: list[dict[str, Any]], *keys: str) -> float:
    return sum(median(runs, key) or 0.0 for key in keys)


def bars(
    runs: list[dict[str, Any]],
    label: str,
    value: Callable[[list[dict[str, Any]]], float | None],
    path: Path,
) -> Path:
    from matplotlib.figure import Figure

    jobs, percents, swaps = (unique(runs, key) for key in ("job", "percent", "swap"))
    figure = Figure(figsize=(3 * len(jobs), 3.8), dpi=110, layout="constrained")
    all_axes = figure.subplots(1, len(jobs), squeeze=False)
    for axes, job in zip(all_axes[0], jobs, strict=True):
        for number, swap in enumerate(swaps):
            places, heights = [], []
            for at, percent in enumerate(percents):
                same = [
                    run
                    for run in runs
                    if (run["job"], run["percent"], run["swap"]) == (job, percent, swap)
                ]
                if same:
                    places.append(at + number / (len(swaps) + 1))
                    heights.append(value(same) or 0.0)
            axes.bar(places, heights, width=1 / (len(swaps) + 1), align="edge", label=swap)
        axes.set_title(job)
        axes.set_xticks([at + 0.4 for at in range(len(percents))])
        axes.set_xticklabels([f"{percent} %" for percent in percents])
    all_axes[0][0].set_ylabel(label)
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(swaps))
    figure.savefig(path)
    return path


if __name__ == "__main__":
    measured = measure(lambda text: print(text, file=sys.stderr), "--quick" in sys.argv)
    print(table(measured))
    if "--json" in sys.argv:
        print(json.dumps(measured))
