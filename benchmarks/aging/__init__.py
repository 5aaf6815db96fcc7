# SPDX-License-Identifier: BSD-3-Clause
"""Section `aging`: what stays in memory when more is swapped than the pool holds.

Recorded traffic of guests and patterns that are known to be hard are played against a pool that is
too small: preswapd's, preswapd's as it was at first, and beside them a plain file.  Every byte that
is read is checked.  Then two jobs in a guest work in turn.
"""

import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.aging import felt, patterns, player, recordings, runs, turns
from benchmarks.aging.contenders import Contender, contenders_with
from benchmarks.aging.drawn import plot
from benchmarks.aging.shown import table
from benchmarks.loads import FAULTS
from benchmarks.sections import Figures, Progress

__all__ = ["PARTS", "measure", "plot", "table"]

PARTS = ("recordings", "patterns", "felt", "turns")
# Of recordings: an emulated processor is several times slower than a real one.
SPEED, QUICK_SPEED = 8.0, 32.0
QUICK_RECORDINGS = ("skewed",)
# Of the two jobs in a guest.
MINUTES, QUICK_MINUTES = 2.0, 0.01


def measure(
    progress: Progress,
    quick: bool,
    *,
    parts: Sequence[str] = PARTS,
    speed: float | None = None,
    minutes: float | None = None,
    serve: str = "",
) -> Figures:
    """`serve`: further options of `preswapd serve`, as a shell reads them."""
    options = tuple(shlex.split(serve))
    with tempfile.TemporaryDirectory(prefix="preswapd-bench-") as folder:
        program = player.build(Path(folder))
        by_part: dict[str, Callable[[], Figures]] = {
            "recordings": lambda: replayed(
                progress,
                QUICK_RECORDINGS if quick else tuple(recordings.SIMULATED),
                speed or (QUICK_SPEED if quick else SPEED),
                options,
                program,
            ),
            "patterns": lambda: patterned(
                progress, patterns.QUICK if quick else patterns.FULL, options, program
            ),
            "felt": lambda: felt.measure(progress, quick, options, program),
            "turns": lambda: turns.measure(
                progress, quick, options, minutes or (QUICK_MINUTES if quick else MINUTES)
            ),
        }
        return {"options": serve, **{part: by_part[part]() for part in parts}}


def replayed(
    progress: Progress,
    names: Iterable[str],
    speed: float,
    options: Sequence[str],
    program: Path,
) -> Figures:
    """A plain file is left out: it reads all from disk and writes all to it."""
    ours, first, _ = contenders_with(options)
    traces = {}
    missing: dict[str, str] = {}
    for name in names:
        progress(f"aging: how much the pages of {name} take")
        known = recordings.most(name)
        most = runs.footprint(known, program, ours)
        pool = most["bytes"] // 2
        found: dict[str, Figures] = {}
        for contender in those_left((ours, first), missing):
            progress(f"aging: replaying {name}, {contender.name}")
            with named_where_it_fails(contender, missing):
                server = contender.server(pool, runs.disk_for(known))
                found[contender.name] = runs.replayed(name, server, program, speed)
        traces[name] = {"most": most, "pool": pool, "runs": found}
    return {"speed": speed, "traces": traces, "missing": missing}


def patterned(
    progress: Progress, scale: patterns.Scale, options: Sequence[str], program: Path
) -> Figures:
    by_name = {}
    missing: dict[str, str] = {}
    for name, pattern in patterns.patterns(scale).items():
        found: dict[str, Figures] = {}
        for contender in those_left(contenders_with(options), missing):
            progress(f"aging: {name}, {contender.name}")
            with named_where_it_fails(contender, missing):
                found[contender.name] = runs.patterned(pattern, contender, scale.pool, program)
        shown = [window.name for window in pattern.windows if window.shown]
        by_name[name] = {"title": pattern.title, "shown": shown, "runs": found}
    return {"pool": scale.pool, "found": by_name, "missing": missing}


def those_left(all_of_them: Iterable[Contender], missing: Mapping[str, str]) -> list[Contender]:
    return [contender for contender in all_of_them if contender.name not in missing]


@contextmanager
def named_where_it_fails(contender: Contender, missing: dict[str, str]) -> Iterator[None]:
    """The others go on without one that does not start; a wrong page ends the section."""
    try:
        yield
    except FAULTS as error:
        missing[contender.name] = str(error)
