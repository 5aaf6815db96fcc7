# SPDX-License-Identifier: BSD-3-Clause
"""What the demonstration has shown, for a person to read."""

import time

from preswapd.demo.measured import Figures
from preswapd.demo.stage import Stage
from preswapd.units import format_size


def show_summary(stage: Stage) -> None:
    stage.screen.title("What happened")
    width = max(len(name) for name, _ in lines(stage))
    for name, text in lines(stage):
        stage.screen.say(f"{name:<{width}}  {text}")
    stage.screen.title("What was checked")
    for check in stage.checks.made:
        stage.screen.verdict(check.good, check.sentence)
    show_verdict(stage)


def lines(stage: Stage) -> list[tuple[str, str]]:
    records, total = stage.records, stage.records.total
    return [
        (
            "guest",
            f"{format_size(records.guest_memory)} of memory, and up to"
            f" {format_size(records.most_swap)} more in use on its swap disk",
        ),
        (
            "pages put",
            f"{total.stored:,} taken by tmem, {total.rejected:,} rejected and written to disk",
        ),
        (
            "pages moved",
            f"{total.made_room:,} to disk to make room, {total.came_back:,} back into memory",
        ),
        (
            "pages read",
            f"{total.read_from_tmem:,} from tmem, {total.read_from_disk:,} from disk",
        ),
        ("compression", compression(records.peak)),
        (
            "memory back",
            f"{format_size(records.shrink_freed)} by vm.preswap=0"
            f" in {records.shrink_seconds:.1f} s,"
            f" {format_size(records.discard_freed)} by the guest's discards",
        ),
        ("restart", f"{records.stall_seconds:.1f} s without its swap disk after kill -9"),
        ("time", f"{time.monotonic() - records.started:.0f} s"),
    ]


def compression(peak: Figures | None) -> str:
    if peak is None or not peak.memory:
        return "no page was in tmem"
    return (
        f"{peak.original / peak.memory:.1f} to 1 at the peak: {format_size(peak.original)} of pages"
        f" in {format_size(peak.memory)} of host memory, all included"
    )


def show_verdict(stage: Stage) -> None:
    made, failed = stage.checks.made, stage.checks.failed
    if not failed:
        stage.screen.title(f"Nothing was lost: every one of the {len(made)} checks passed.")
        return
    stage.screen.title(f"{len(failed)} of {len(made)} checks failed:")
    for check in failed:
        stage.screen.verdict(False, check.sentence)
