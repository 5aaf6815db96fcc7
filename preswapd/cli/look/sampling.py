# SPDX-License-Identifier: BSD-3-Clause
"""`stats` again and again: rows for people, JSON lines for programs."""

import json

import click

from preswapd.api.figures import Statistics
from preswapd.cli.look.rows import Moment, Subject, devices_of, pool_of, with_device
from preswapd.cli.look.table import TextTable
from preswapd.cli.look.watching import Watch, Watched, ticks, until_interrupted
from preswapd.errors import PreswapError, UnreachableError, UsageError

# About the height of a terminal: the headings should stay in sight.
ROWS_PER_HEADING = 20


def print_rows(
    watch: Watch, dev: str | None, table: TextTable, seconds: float, count: int | None
) -> None:
    """Headings once, and again before they have left the screen."""
    news = News()
    since_heading = ROWS_PER_HEADING
    with until_interrupted():
        for _ in ticks(seconds, count):
            rows = []
            for watched in watch.look():
                news.tell(watched)
                if watched.now is not None:
                    rows += subjects(watched, watched.now, dev)
            headings = since_heading >= ROWS_PER_HEADING and bool(rows)
            for line in table.lines(rows, headings=headings):
                click.echo(line)
            since_heading = len(rows) if headings else since_heading + len(rows)
            if table.style.raw:
                since_heading = 0
    news.complain()


def subjects(watched: Watched, now: Moment, dev: str | None) -> list[Subject]:
    if dev is None:
        return [pool_of(now, watched.before)]
    chosen(watched, now, dev)
    return [row for row in devices_of(now, watched.before) if row.name == dev]


def chosen(watched: Watched, now: Moment, dev: str | None) -> Statistics:
    """UsageError for a device that was never there, PreswapError for one that was removed."""
    if dev is None:
        return now.stats
    try:
        return with_device(now.stats, dev)
    except UsageError:
        if watched.before is None:
            raise
        raise PreswapError(f"{dev} is gone from {watched.name}: it was removed") from None


def print_json_lines(watch: Watch, dev: str | None, seconds: float, count: int | None) -> None:
    """What `--json stats` prints, in one line each, with `time` before it."""
    news = News()
    with until_interrupted():
        for _ in ticks(seconds, count):
            for watched in watch.look():
                news.tell(watched)
                if watched.now is not None:
                    stats = chosen(watched, watched.now, dev)
                    click.echo(json.dumps({"time": round(watched.now.time, 6), **stats}))
    news.complain()


class News:
    """Says on stderr which server went away and which came back, once each."""

    def __init__(self) -> None:
        self.away: dict[int, Watched] = {}

    def tell(self, watched: Watched) -> None:
        if watched.away is not None and id(watched) not in self.away:
            self.away[id(watched)] = watched
            click.echo(f"preswapctl: {watched.away}", err=True)
        elif watched.away is None and id(watched) in self.away:
            del self.away[id(watched)]
            click.echo(f"preswapctl: {watched.name} is back", err=True)

    def complain(self) -> None:
        """UnreachableError when the watch ends while a server is away, for the exit status."""
        if self.away:
            gone = ", ".join(watched.name for watched in self.away.values())
            raise UnreachableError(f"{gone} did not come back")
