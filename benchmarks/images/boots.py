# SPDX-License-Identifier: BSD-3-Clause
"""Clients that boot from one image at once: how long, what the disk reads for it, what memory."""

import json
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.host_usage import drop_from_page_cache, read_by
from benchmarks.images.contenders import Contender, Served, served
from benchmarks.sections import Figures

# All pages that were recorded, as they come: none has to go.
POOL = 512 << 20
READY_SECONDS, BOOT_SECONDS = 60.0, 300.0


class Client:
    """benchmarks/images/player.py as a process of its own."""

    def __init__(self, disk: str, speed: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.images.player", str(speed), disk],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, seconds: float) -> str:
        assert self._process.stdout
        assert self._process.stderr
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            last = self._process.stderr.read().strip().splitlines()[-1:]
            raise RuntimeError(f"a client did not boot: {(last or ['no answer'])[0]}")
        return line

    def begin(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def clients(number: int, disk: str, speed: float) -> Iterator[list[Client]]:
    with ExitStack() as stack:
        begun = [Client(disk, speed) for _ in range(number)]
        for one in begun:
            stack.callback(one.end)
        for one in begun:
            one.line(READY_SECONDS)
        yield begun


def boots(
    contender: Contender, image: Path, number: int, speed: float, *, warm: bool = True
) -> Figures:
    """Of so many at once: the first time, and once more when it is in memory already."""
    drop_from_page_cache(image)
    with (
        served(contender, image, POOL) as serving,
        clients(number, serving.disk, speed) as guests,
    ):
        serving.wait_until_cached()
        found = {"cold": boot(serving, guests)}
        if warm:
            found["warm"] = boot(serving, guests)
        return found


def boot(serving: Served, guests: Sequence[Client]) -> Figures:
    before, ours = disk_bytes(serving, guests), serving.figures()
    for guest in guests:
        guest.begin()
    answers: list[dict[str, float]] = [json.loads(guest.line(BOOT_SECONDS)) for guest in guests]
    after = disk_bytes(serving, guests)
    counted = serving.figures()
    # Pages that are still as they came.
    if serving.serving:
        serving.serving.settle()
    return {
        "seconds": max(one["seconds"] for one in answers),
        "median": max(one["median"] for one in answers),
        "p99": max(one["p99"] for one in answers),
        "waited": sum(one["waited"] for one in answers) / len(answers),
        "disk": after - before,
        "memory": serving.memory(),
        "image": {
            name: counted[name] - ours[name]
            for name in ("reads", "hits", "misses", "puts", "disk_reads", "evicted")
            if name in counted
        },
    }


def disk_bytes(serving: Served, guests: Sequence[Client]) -> int:
    """By those that read the image, so far."""
    readers = [serving.serving.process] if serving.serving else [guest.pid for guest in guests]
    return sum(map(read_by, readers))
