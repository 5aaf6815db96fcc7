# SPDX-License-Identifier: BSD-3-Clause
"""The tables of a run as one document, which docs/benchmark-tables.md is for the last run told of.

python -m benchmarks.tables FIGURES.json >FILE
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import sections, targets

INTRODUCTION = """\
# Benchmark tables
Every figure of one run, written by `make bench BENCH_ARGS='--tables FILE'`. What is measured,
what is fair about it and what was found: [benchmarks.md](benchmarks.md)."""
GIB = 1 << 30


def document(figures: Mapping[str, Any]) -> str:
    return "\n\n".join(parts(figures)) + "\n"


def parts(figures: Mapping[str, Any]) -> Iterator[str]:
    yield INTRODUCTION
    yield circumstances(figures)
    yield part("Targets", targets.table(targets.rows(figures["sections"])))
    for name in sections.NAMES:
        section = sections.load(name)
        if section is not None and name in figures["sections"]:
            title = name.replace("_", " ").capitalize()
            yield part(title, section.table(figures["sections"][name]))


def circumstances(figures: Mapping[str, Any]) -> str:
    machine = figures["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    cores, memory = machine["cores"], machine["memory"] / GIB
    lines = figures["date"], versions, f"{machine['processor']}, {cores} cores, {memory:.0f} GiB"
    return "\n".join(f"- {line}" for line in lines)


def part(title: str, table: str) -> str:
    return f"## {title}\n```\n{table}\n```"


if __name__ == "__main__":
    print(document(json.loads(Path(sys.argv[1]).read_text())), end="")
