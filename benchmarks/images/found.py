# SPDX-License-Identifier: BSD-3-Clause
"""What the targets ask of the figures of the section `images`."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.images.contenders import CACHED, NBDKIT, OURS
from benchmarks.images.misses import SINGLE, slower

Sections = Mapping[str, Any]
Find = Callable[[Sections], float | None]


def of_images(figure: Callable[[Mapping[str, Any]], float | None]) -> Find:
    def find(sections: Sections) -> float | None:
        found = sections.get("images")
        return None if found is None else figure(found)

    return find


def most(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of as many clients as there were."""
    boots: Mapping[str, Mapping[str, Any]] = found["boots"]
    return boots[max(boots, key=int)]


@of_images
def disk_reads(found: Mapping[str, Any]) -> float | None:
    """Of all clients to one's, cold."""
    one = found["boots"]["1"][OURS]["cold"]["disk"]
    return float(most(found)[OURS]["cold"]["disk"]) / one if one else None


@of_images
def memory(found: Mapping[str, Any]) -> float | None:
    """All that is taken for the image, to the page cache's, after both boots."""
    seen = most(found)
    ours, theirs = (sum(seen[who]["warm"]["memory"].values()) for who in (OURS, CACHED))
    return float(ours) / theirs if theirs else None


@of_images
def arena(found: Mapping[str, Any]) -> float | None:
    """The same without the process."""
    seen = most(found)
    theirs = sum(seen[CACHED]["warm"]["memory"].values())
    return float(seen[OURS]["warm"]["memory"]["arena"]) / theirs if theirs else None


def seconds(state: str, other: str = CACHED) -> Find:
    """Of the slowest of all clients, to those of another way."""

    def figure(found: Mapping[str, Any]) -> float:
        seen = most(found)
        return float(seen[OURS][state]["seconds"]) / float(seen[other][state]["seconds"])

    return of_images(figure)


def limited_seconds(found: Mapping[str, Any]) -> float | None:
    limited = found["limited"]
    if "missing" in limited:
        return None
    seen = most(limited)
    return float(seen[OURS]["cold"]["seconds"]) / float(seen[CACHED]["cold"]["seconds"])


limited = of_images(limited_seconds)
misses = of_images(lambda found: slower(found["misses"], SINGLE, "cold"))
hits = of_images(lambda found: slower(found["misses"], SINGLE, "warm"))
boots_of_nbdkit = seconds("cold", NBDKIT)
rejected = of_images(lambda found: float(found["burst"]["full"]["rejected"]))
