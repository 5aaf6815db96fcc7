# SPDX-License-Identifier: BSD-3-Clause
"""What tables and the live view show: the figures of a pool or a device, and how fast they grow."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, Self

from preswapd.api.figures import DeviceFigures, ImageFigures, Statistics
from preswapd.api.messages import Age, is_an_image
from preswapd.errors import UsageError

# Figures by key: a table chooses its columns while it runs.
Figures = Mapping[str, Any]

# What a pool's row says of all its devices together.
SUMMED = (
    "loads",
    "disk_reads",
    "disk_writes",
    "disk_errors",
    "read_requests",
    "write_requests",
    "written_back_pages",
    "written_back_room",
    "written_back_idle",
    "refaults",
    "promoted_pages",
)

# What a device's row says of its pool.
OF_POOL = ("frozen",)


class Moment(NamedTuple):
    """One answer to `GET /v1/stats`, and when it came."""

    stats: Statistics
    clock: float  # seconds that only go forward
    time: float  # of day, since 1970

    @classmethod
    def of(cls, stats: Statistics, asked: float | None = None) -> Self:
        """`asked`: on the same clock.  The server counted at some time between then and now, which
        may be long for one that hung: halfway is wrong by a factor of two at most."""
        now = time.monotonic()
        return cls(stats, now if asked is None else (asked + now) / 2, time.time())

    @property
    def life(self) -> tuple[object, object]:
        """A different value means that the server was restarted, and its counters began at 0."""
        server = self.stats.get("server", {})
        return server.get("start_time"), server.get("pid")


class Subject(NamedTuple):
    """One row: a pool, a device or an image."""

    instance: str
    name: str
    time: float
    figures: Figures
    rates: Mapping[str, float] | None = None  # per second; None without an earlier look

    def rate(self, key: str) -> float | None:
        return None if self.rates is None else self.rates.get(key)


def with_device(stats: Statistics, dev: str) -> Statistics:
    """The statistics with this device alone."""
    if dev not in stats["devices"]:
        if dev in stats.get("images", {}) or dev in stats.get("refused_images", {}):
            raise UsageError(is_an_image(dev, stats["instance"]))
        raise UsageError(f"there is no device {dev!r} in {stats['instance']}")
    return {**stats, "devices": {dev: stats["devices"][dev]}}


def pool_of(now: Moment, before: Moment | None = None) -> Subject:
    instance = now.stats["instance"]
    then = None if before is None else pool_figures(before.stats)
    figures = pool_figures(now.stats)
    return Subject(instance, instance, now.time, figures, rates(now, before, figures, then))


def pool_figures(stats: Statistics) -> Figures:
    devices: list[Figures] = list(stats["devices"].values())
    # What an older server does not count has no value, and not the value 0.
    known = [key for key in SUMMED if all(key in device for device in devices)]
    sums = {key: sum(device[key] for device in devices) for key in known}
    remote: Figures = stats.get("remote", {})
    counts = {key: value for key, value in remote.items() if key != "latency"}
    return {**stats["tmem"], **sums, **counts, "devices": len(devices)}


def devices_of(now: Moment, before: Moment | None = None) -> list[Subject]:
    earlier: dict[str, DeviceFigures] = {} if before is None else before.stats["devices"]
    of_pool = {key: now.stats["tmem"].get(key) for key in OF_POOL}
    return [
        Subject(
            now.stats["instance"],
            name,
            now.time,
            {**of_pool, **figures},
            rates(now, before, figures, earlier.get(name)),
        )
        for name, figures in now.stats["devices"].items()
    ]


def images_of(now: Moment, before: Moment | None = None) -> list[Subject]:
    """A row for each image that is served."""
    earlier: dict[str, ImageFigures] = {} if before is None else before.stats.get("images", {})
    return [
        Subject(
            now.stats["instance"],
            name,
            now.time,
            figures,
            rates(now, before, figures, earlier.get(name)),
        )
        for name, figures in now.stats.get("images", {}).items()
    ]


def rates(
    now: Moment, before: Moment | None, figures: Figures, earlier: Figures | None
) -> Mapping[str, float] | None:
    if before is None or earlier is None or before.life != now.life or now.clock <= before.clock:
        return None
    seconds = now.clock - before.clock
    # A counter that went down is of another device, which was created under the same name.
    return {
        key: max(0, value - earlier[key]) / seconds
        for key, value in figures.items()
        if is_number(value) and is_number(earlier.get(key))
    }


def ages_of(stats: Statistics, ages: Iterable[Age]) -> list[Subject]:
    """A row for each age, with what the pool takes."""
    used, name = stats["tmem"]["mem_used_total"], stats["instance"]
    return [Subject(name, name, 0.0, {**asdict(age), "mem_used_total": used}) for age in ages]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
