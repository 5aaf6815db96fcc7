# SPDX-License-Identifier: BSD-3-Clause
"""Two servers of the same kind: pages leave one of them, and come to the other."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import storing
from benchmarks.servers import Running, preswapd, running
from preswapd.api.client import Client
from preswapd.demo.server import installed

DEVICE = "bench"
# Of the captured pages, so many times over.
COPIES, QUICK_COPIES = 4, 1
ROUNDS, QUICK_ROUNDS = 5, 1


class Ends(NamedTuple):
    """From where pages leave, and to where they come."""

    source: Running
    target: Running

    @property
    def folder(self) -> Path:
        """Of the source, in memory."""
        return self.source.folder


@contextmanager
def both(codec: str, size: int, options: Sequence[str] = ()) -> Iterator[Ends]:
    """`options`: of the source's `preswapd serve`."""
    pool, disk = str(2 * size), str(size + 2 * storing.START)
    target = preswapd(codec, pool=pool, size=disk)
    source = preswapd(codec, pool=pool, size=disk, options=options)
    with running(source) as one, running(target) as other:
        yield Ends(one, other)


def fill(serving: Running, pages: Path, copies: int) -> None:
    run(serving, "thaw")
    client_of(serving).swapoff(DEVICE)
    with storing.connected(serving) as handle:
        content = pages.read_bytes()
        for copy in range(copies):
            for at in range(0, len(content), storing.REQUEST):
                start = storing.START + copy * len(content) + at
                handle.pwrite(content[at : at + storing.REQUEST], start)
    serving.settle()
    # What nbdcopy reads must not be an error.
    run(serving, "trim", DEVICE, "--yes")


def empty(serving: Running) -> None:
    client_of(serving).swapoff(DEVICE)
    storing.at_rest(serving)


def held(serving: Running) -> int:
    """Pages that are not zeros."""
    figures = client_of(serving).device(DEVICE)
    return int(figures["preswap_pages"] + figures["disk_pages"])


def client_of(serving: Running) -> Client:
    assert serving.server.control is not None
    return Client(serving.folder / serving.server.control)


def ctl(serving: Running, *arguments: str) -> list[str]:
    runtime_dir = serving.folder / str(serving.server.control)
    return [installed("preswapctl"), f"--runtime-dir={runtime_dir.parent}", *arguments]


def run(serving: Running, *arguments: str) -> None:
    subprocess.run(ctl(serving, *arguments), check=True, stdout=subprocess.DEVNULL)
