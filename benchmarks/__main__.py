# SPDX-License-Identifier: BSD-3-Clause
"""`make bench`: preswapd beside its peers, measured in one run; tables, figures as JSON, plots.

python -m benchmarks [--sections NAME,...] [--quick] [--json FILE] [--tables FILE] [...]
"""

import argparse
import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, sections, tables, targets
from benchmarks.aging import PARTS
from benchmarks.servers import DISKS


def main() -> int:
    # Ended as by Ctrl-C: servers, guests and their files go with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    arguments = parsed()
    # Found missing now, and not after half an hour.
    plots = importlib.import_module("benchmarks.plots") if arguments.plots else None
    results = Results(arguments.json)
    for name in arguments.sections:
        results.measure(name, arguments.quick, arguments.of_section.get(name, {}))
    found = targets.rows(results.figures["sections"])
    print(f"\n{targets.table(found)}")
    results.figures["targets"] = [vars(row) for row in found]
    results.write()
    arguments.tables.write_text(tables.document(results.figures))
    print(f"\nfigures: {arguments.json}\ntables: {arguments.tables}")
    if plots:
        for path in plots.draw_all(results.figures["sections"], arguments.plots):
            print(f"plot: {path}")
    return 1 if results.failed else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog=f"Sections: {', '.join(sections.NAMES)}.",
    )
    parser.add_argument("--sections", type=names, default=list(sections.NAMES), metavar="A,B")
    parser.add_argument("--quick", action="store_true", help="smallest sizes: does it work at all?")
    parser.add_argument("--json", type=Path, default=DISKS / "figures.json", metavar="FILE")
    parser.add_argument("--tables", type=Path, default=DISKS / "tables.md", metavar="FILE")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw plots; needs matplotlib")
    loads = parser.add_argument_group("section loads")
    loads.add_argument("--rounds", type=int)
    loads.add_argument("--seconds", type=float, help="of each load in a round")
    loads.add_argument("--only", default="", metavar="TEXT", help="loads with this in their names")
    aging = parser.add_argument_group("section aging")
    aging.add_argument("--parts", type=parts, default=list(PARTS), metavar="A,B")
    aging.add_argument("--speed", type=float, help="that recordings are replayed with")
    aging.add_argument("--minutes", type=float, help="of two jobs in turn in a guest")
    aging.add_argument("--serve", default="", metavar="OPTIONS", help="for `preswapd serve`")
    arguments = parser.parse_args()
    of_section = {
        "loads": ("rounds", "seconds", "only"),
        "aging": ("parts", "speed", "minutes", "serve"),
    }
    arguments.of_section = {
        section: {name: getattr(arguments, name) for name in chosen}
        for section, chosen in of_section.items()
    }
    return arguments


def names(text: str) -> list[str]:
    return chosen(text, sections.NAMES)


def parts(text: str) -> list[str]:
    return chosen(text, PARTS)


def chosen(text: str, known: Sequence[str]) -> list[str]:
    words = text.split(",")
    for name in words:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return words


class Results:
    """All figures of this run, written after each section: a run that breaks off has those."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failed = False
        self.figures: dict[str, Any] = {**machine.describe(), "sections": {}, "seconds": {}}

    def measure(self, name: str, quick: bool, options: dict[str, Any]) -> None:
        section = sections.load(name)
        if section is None:
            print(f"\n# {name}: not in this checkout")
            return
        begun = time.monotonic()
        try:
            figures = section.measure(progress, quick, **options)
            self.figures["seconds"][name] = round(time.monotonic() - begun, 1)
            self.figures["sections"][name] = figures
            self.write()
            progress("")
            print(f"\n# {name} ({self.figures['seconds'][name]:.0f} s)\n\n{section.table(figures)}")
        except Exception:
            # The other sections' figures are worth having.
            self.failed = True
            progress("")
            traceback.print_exc()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.figures, indent=1) + "\n")


def progress(text: str) -> None:
    """One line that changes, or on something other than a terminal a line each time."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
