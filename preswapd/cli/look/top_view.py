# SPDX-License-Identifier: BSD-3-Clause
"""One frame of `top`: the host, and each instance with its pool, its devices and its images."""

import locale
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.text import Text

from preswapd.cli.look.columns import (
    DEVICE_COLUMNS,
    DEVICE_RATES,
    IMAGE_COLUMNS,
    IMAGE_RATES,
    LATENCIES,
    POOL_COLUMNS,
    POOL_RATES,
    QUOTA,
)
from preswapd.cli.look.rows import Moment, Subject, devices_of, images_of, pool_of
from preswapd.cli.look.table import Column, Columns, Style, TextTable, choose
from preswapd.cli.look.watching import Watched
from preswapd.cli.stopped import Stopped
from preswapd.host.pressure import Pressure
from preswapd.units import PAGE_SIZE, format_size

# The last ones give way on a narrow terminal.
DEVICE_NAMES = (
    "NAME",
    "USED",
    "TMEM",
    "QUOTA",
    "DISK",
    "HIT%",
    "LOADS/S",
    "DISKR/S",
    *(column.name for column in LATENCIES),
    "STORES/S",
    "REJECTS/S",
    "DISKW/S",
    "MOVED/S",
    "REFAULTS/S",
    "TRIMS/S",
    "SIZE",
)
IMAGE_NAMES = (
    "NAME",
    "CACHED",
    "MEMORY",
    "HIT%",
    "HITS/S",
    "MISSES/S",
    "DISKR/S",
    *(column.name for column in LATENCIES),
    "PUTS/S",
    "EVICTED/S",
    "CLIENTS",
    "STATE",
    "SIZE",
)
# As above: of a line, its end is left out.
POOL_NAMES = (
    "PUTS/S",
    "REJECTS/S",
    "GETS/S",
    "DISKR/S",
    "DISKW/S",
    "HIT%",
    "MOVED/S",
    "REFAULTS/S",
)
# Where there is a remote tier.
STORE_NAMES = ("STORER/S", "STOREW/S", "STORE", "STOREMISSES", "STORELATE")

# Of the bar, and of what is beside it.
BAR_WIDTHS = range(10, 41)
LEGEND_WIDTH = 82
UTF_8 = ("utf-8", "utf8")
# Payload, staged, overhead, free.
BLOCKS, ASCII_BLOCKS = "█▓▒░", "#+=."
COLOURS = ("green", "yellow", "blue", "bright_black")


@dataclass(frozen=True)
class HostMemory:
    """This machine's memory; None where it cannot be read."""

    available: int | None
    pressure: Pressure | None


class View:
    """Draws for one console, as wide as that is and in what it can show."""

    def __init__(self, console: Console, seconds: float) -> None:
        self.console = console
        self.seconds = seconds
        # Python writes UTF-8 in the C locale too, to a terminal that may not know it.
        plain = console.options.ascii_only or locale.getencoding().lower() not in UTF_8
        self.blocks = ASCII_BLOCKS if plain else BLOCKS

    def frame(
        self, found: Sequence[Watched], host: HostMemory, stopped: Sequence[Stopped] = ()
    ) -> Group:
        lines = [self.head(host)]
        devices = self.headings(found, devices_of, (*DEVICE_RATES, *DEVICE_COLUMNS), DEVICE_NAMES)
        images = self.headings(found, images_of, (*IMAGE_RATES, *IMAGE_COLUMNS), IMAGE_NAMES)
        for watched in found:
            lines.append(Text())
            lines += self.instance(watched, devices, images)
        for gone in stopped:
            lines += [
                Text(),
                Text.assemble((gone.name, "bold cyan"), (f"  {gone.text}", "bold red")),
            ]
        for line in lines:
            line.no_wrap, line.overflow = True, "crop"
        return Group(*lines)

    def head(self, host: HostMemory) -> Text:
        return Text.assemble(
            ("preswapctl top", "bold"),
            f"  {time.strftime('%H:%M:%S')}, every {self.seconds:g} s",
            f"   host: MemAvailable {size(host.available)}",
            f", memory pressure {pressure(host.pressure)}",
        )

    # --- one instance ---

    def instance(self, watched: Watched, devices: TextTable, images: TextTable) -> Iterator[Text]:
        if watched.now is None:
            yield self.absence(watched)
            return
        now, before = watched.now, watched.before
        pool = pool_of(now, before)
        notice = (
            (", frozen: new pages go to disk", "bold yellow") if pool.figures.get("frozen") else ""
        )
        yield Text.assemble((watched.name, "bold cyan"), f"  {about(now)}", notice)
        yield self.bar(pool)
        yield self.rates(pool)
        if "remote_reads" in pool.figures:
            yield self.store(pool)
        cached = images_of(now, before)
        if now.stats["devices"] or not cached:
            yield from written(devices, devices_of(now, before))
        if cached:
            yield from written(images, cached)
        for name, why in now.stats.get("refused_images", {}).items():
            yield Text(f"  {name} is not served: {why}", "bold red")

    def absence(self, watched: Watched) -> Text:
        seconds = time.monotonic() - watched.away_since
        return Text.assemble(
            (watched.name, "bold cyan"),
            (f"  away for {seconds:.0f} s: {watched.away}", "bold red"),
        )

    def bar(self, pool: Subject) -> Text:
        figures = pool.figures
        limit, used = figures["mem_limit"], figures["mem_used_total"]
        staged = min(PAGE_SIZE * figures.get("staged_pages", 0), figures["compr_data_size"])
        payload = figures["compr_data_size"] - staged
        parts = (payload, staged, used - payload - staged, max(0, limit - used))
        bar = Text("  ")
        room = max(BAR_WIDTHS[0], min(BAR_WIDTHS[-1], self.console.width - LEGEND_WIDTH))
        for width, block, colour in zip(shares(parts, room), self.blocks, COLOURS, strict=True):
            bar.append(block * width, colour)
        bar.append(f"  {format_size(used)} of {format_size(limit)} used")
        names = ("payload", "staged", "overhead")
        for name, part, block, colour in zip(names, parts, self.blocks, COLOURS, strict=False):
            bar.append("  ").append(block, colour).append(f" {name} {format_size(part)}")
        return bar.append(f"  ratio {by_name(POOL_COLUMNS, 'RATIO').text(pool)}")

    def rates(self, pool: Subject) -> Text:
        columns = choose((*POOL_RATES, *POOL_COLUMNS), POOL_NAMES, None)
        return Text("  " + "  ".join(f"{column.name} {column.text(pool)}" for column in columns))

    def store(self, pool: Subject) -> Text:
        figures = pool.figures
        columns = choose((*POOL_RATES, *POOL_COLUMNS), STORE_NAMES, None)
        text = "  ".join(f"{column.name} {column.text(pool)}" for column in columns)
        up, nodes = figures["remote_nodes_up"], figures["remote_nodes"]
        line = Text("  store: ")
        if not figures["remote_used"]:
            return line.append("not used", "bold yellow")
        is_well = up == nodes > 0 and not figures["remote_open"]
        line.append(f"{up} of {nodes} nodes", "" if is_well else "bold red")
        return line.append(f"  {text}")

    # --- the tables of devices and of images ---

    def headings(
        self,
        found: Sequence[Watched],
        rows_of: Callable[[Moment, Moment | None], list[Subject]],
        known: Columns,
        names: Sequence[str],
    ) -> TextTable:
        """One table for all instances, so that their columns are aligned."""
        rows = [
            row
            for watched in found
            if watched.now is not None
            for row in rows_of(watched.now, watched.before)
        ]
        columns = [column for column in choose(known, names, None) if is_known(column, rows)]
        while True:
            table = TextTable(columns, Style(), grows=True)
            widest = max(map(len, table.lines(rows)))
            if widest + 2 <= self.console.width or len(columns) == 1:
                return table
            columns = columns[:-1]


def written(table: TextTable, rows: Sequence[Subject]) -> Iterator[Text]:
    for number, line in enumerate(table.lines(rows)):
        yield Text(f"  {line}", "bold" if number == 0 else "")


def is_known(column: Column, rows: Sequence[Subject]) -> bool:
    """Latencies have no column where no server measures them, quotas none where there is none."""
    always = column not in (*LATENCIES, QUOTA)
    return always or any(column.value(row) is not None for row in rows)


def by_name(columns: Sequence[Column], name: str) -> Column:
    return next(column for column in columns if column.name == name)


def shares(parts: Sequence[int], room: int) -> list[int]:
    """Their widths in a bar, rounded so that together they fill it."""
    whole = sum(parts) or 1
    ends = [round(room * sum(parts[: end + 1]) / whole) for end in range(len(parts))]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def about(now: Moment) -> str:
    text = f"preswapd {now.stats['version']}"
    start = now.stats.get("server", {}).get("start_time")
    return f"{text}, up {duration(now.time - start)}" if start else text


def duration(seconds: float) -> str:
    minutes = int(max(0, seconds)) // 60
    if minutes < 1:
        return f"{max(0, seconds):.0f}s"
    if minutes < 60:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h {minutes % 60}m" if hours < 24 else f"{hours // 24}d {hours % 24}h"


def size(value: int | None) -> str:
    return "not available" if value is None else format_size(value)


def pressure(value: Pressure | None) -> str:
    return "not available" if value is None else f"some {value.some:.1f} % full {value.full:.1f} %"
