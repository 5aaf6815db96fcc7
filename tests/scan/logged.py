# SPDX-License-Identifier: BSD-3-Clause
"""A disk over NBD that writes down what is read of it, and how far that is in the scan zone."""

import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from preswapd.guest.programs import find
from preswapd.host.children import Child
from preswapd.preswap.files.header import swap_header
from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE
from tests.running import PATIENCE

# A line of nbdkit's log filter: "… connection=1 Read id=1 offset=0x0 count=0x200 …".
REQUEST = re.compile(r" (Read|Write|Trim|Zero) id=\d+ offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+)")


class Span(NamedTuple):
    """Bytes of a disk, the end not included."""

    start: int
    end: int


class Request(NamedTuple):
    """What a client asked for: Read, Write, Trim or Zero."""

    kind: str
    span: Span


@dataclass(frozen=True)
class Shape:
    """What a disk is: of that size, all zeros or with our swap header."""

    name: str
    size: int
    header: bool


class LoggedDisk:
    """Served by nbdkit while the `with` block lasts."""

    def __init__(self, shape: Shape, folder: Path) -> None:
        self.shape = shape
        self.socket = folder / f"{shape.name}.sock"
        self._image = folder / f"{shape.name}.img"
        self._log = folder / f"{shape.name}.log"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._image.open("wb") as file:
            if self.shape.header:
                file.write(swap_header(self.shape.name, self.shape.size))
            file.truncate(self.shape.size)
        # Written when it listens; the socket is there a moment earlier.
        ready = self._image.with_suffix(".pid")
        server = Child(
            [
                *(str(find("nbdkit", "nbdkit")), "--foreground", "--unix", str(self.socket)),
                *("--pidfile", str(ready), "--filter=log"),
                *("file", str(self._image), f"logfile={self._log}"),
            ]
        )
        self._stack.callback(server.kill)
        server.watch(lambda: ready.exists() or None, PATIENCE)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def moment(self) -> int:
        """Now, for `requests`."""
        return self._log.stat().st_size if self._log.exists() else 0

    def requests(self, since: int = 0) -> list[Request]:
        """What clients asked for since that moment."""
        if not self._log.exists():
            return []
        text = self._log.read_bytes()[since:].decode()
        return [
            Request(kind, Span(int(offset, 16), int(offset, 16) + int(count, 16)))
            for kind, offset, count in REQUEST.findall(text)
        ]

    def reads(self, since: int = 0) -> list[Span]:
        """What was read since that moment, in order of place and put together."""
        return merged(span for kind, span in self.requests(since) if kind == "Read")


def merged(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for span in sorted(spans):
        if found and span.start <= found[-1].end:
            last = found.pop()
            span = Span(last.start, max(last.end, span.end))
        found.append(span)
    return found


def pages(span: Span) -> range:
    """All that it touches."""
    return range(span.start // PAGE_SIZE, -(-span.end // PAGE_SIZE))


def outside_zone(spans: Iterable[Span], size: int) -> list[Span]:
    """The whole pages of `spans` that are not in the scan zone of a disk of that size."""
    inside = {page for part in zone(size // PAGE_SIZE) for page in part}
    return merged(
        Span(page * PAGE_SIZE, (page + 1) * PAGE_SIZE)
        for span in spans
        for page in pages(span)
        if page not in inside
    )
