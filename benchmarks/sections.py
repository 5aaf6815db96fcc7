# SPDX-License-Identifier: BSD-3-Clause
"""The parts of the benchmark: what each must have, and which there are.

A section is a module of this package with

    measure(progress, quick) -> figures      a dictionary that JSON can hold
    table(figures) -> str                    the same for people, one or more tables
    plot(figures, folder) -> [path]          optional: PNG files; may import matplotlib

`progress` takes a line that says what is going on. `quick` asks for the smallest sizes that still
go through everything: it shows that the section works, and its figures mean nothing.
"""

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

Figures = dict[str, Any]
Progress = Callable[[str], None]

# In the order in which they run.
NAMES = (
    *("loads", "pages", "memory", "recovery", "many", "giving_back", "guests", "aging"),
    *("governor", "images", "moving", "remote"),
)


class Section(Protocol):
    """A module of a section."""

    # Sections may have further parameters, all with defaults.
    @property
    def measure(self) -> Callable[..., Figures]: ...

    def table(self, figures: Figures) -> str: ...


def load(name: str) -> Section | None:
    """None where this checkout has no such section."""
    module = f"benchmarks.{name}"
    if importlib.util.find_spec(module) is None:
        return None
    return cast(Section, importlib.import_module(module))


def plot(section: Section, figures: Figures, folder: Path) -> list[Path]:
    """What the section draws; nothing for a section that draws nothing."""
    draw = getattr(section, "plot", None)
    return [] if draw is None else list(draw(figures, folder))
