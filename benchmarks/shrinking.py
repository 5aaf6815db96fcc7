# SPDX-License-Identifier: BSD-3-Clause
"""One shrink of a loaded pool, beside dd to the same file system, and what a client sees of it."""

import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import FILL, START, fio
from preswapd.api.client import Client
from preswapd.api.messages import ShrinkProgress, ShrinkResult
from preswapd.demo.server import TemporaryServer
from preswapd.host.children import Child
from preswapd.units import PAGE_SIZE

MIB = 1 << 20
DEVICE = "bench"
# So many bytes of the device, from START on, half of each page compressible.
FILLED = 256 * MIB
# A light load: one request at a time, a tenth of them writes.
READS_PER_SECOND = 1800
WRITES_PER_SECOND = 200
QUIET_SECONDS = 2.0
STAGED_SECONDS = 60.0
END_SECONDS = 60.0


@dataclass(frozen=True)
class Window:
    """From when to when, in milliseconds since 1970, as fio's logs count."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1000


@dataclass(frozen=True)
class Sample:
    """A request of the load: when it was answered, as in Window; after how many microseconds."""

    at: float
    taken: float


def milliseconds() -> float:
    return time.time() * 1000


class LoadedServer(TemporaryServer):
    """A server of its own, whose pool holds FILLED."""

    def __init__(self) -> None:
        super().__init__(2 * FILLED, DEVICE, 2 * FILLED)

    @property
    def uri(self) -> str:
        return self.nbd_uri(DEVICE)

    def fill(self) -> None:
        """Pages in place of whatever there was, on disk too."""
        self.client.swapoff(DEVICE)
        fio(self.uri, FILL, None, size=str(FILLED))
        self.settle()

    def settle(self) -> None:
        """Until no page waits for its compression any more."""
        deadline = time.monotonic() + STAGED_SECONDS
        while self.client.stats()["tmem"].get("staged_pages", 0):
            if time.monotonic() > deadline:
                raise TimeoutError("pages are still staged")
            time.sleep(0.02)


def shrink(client: Client) -> tuple[ShrinkResult, Window]:
    """All pages to disk, as `preswapctl shrink 0` does it."""

    def ignore(step: ShrinkProgress) -> None:
        pass

    start = milliseconds()
    with client.shrink(0) as running:
        report = running.wait(ignore)
    return report, Window(start, milliseconds())


def shrink_rate(server: LoadedServer) -> tuple[float, int]:
    """MB/s of pages, and how many bytes of them; nobody else asks the server for anything."""
    report, window = shrink(server.client)
    size = report.moved * PAGE_SIZE
    return size / window.seconds / 1e6, size


# --- dd ---


def dd_source(folder: Path) -> Path:
    """FILLED bytes that no disk can leave out; the folder lies in memory."""
    source = folder / "source"
    piece = os.urandom(MIB)
    with source.open("wb") as file:
        for _ in range(FILLED // MIB):
            file.write(piece)
    return source


def dd_command(source: Path, target: Path, size: int) -> list[str]:
    count = -(-size // MIB)
    return ["dd", f"if={source}", f"of={target}", "bs=1M", f"count={count}", "oflag=direct"]


def dd_rate(source: Path, folder: Path, size: int) -> float:
    """MB/s of dd to a new file, as the disk file of a shrink is new where it writes."""
    target = folder / "dd"
    command = dd_command(source, target, size)
    begun = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - begun
    target.unlink()
    return -(-size // MIB) * MIB / seconds / 1e6


# --- a client meanwhile ---


class LightLoad:
    """fio, which writes down each request's time."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self._said = folder / "said"
        self._fio = Child(
            [
                *("fio", "--name=light", *arguments, "--rw=randrw", "--bs=4k", "--iodepth=1"),
                *(f"--rate_iops={READS_PER_SECOND},{WRITES_PER_SECOND}", f"--size={FILLED}"),
                f"--rwmixread={100 * READS_PER_SECOND // (READS_PER_SECOND + WRITES_PER_SECOND)}",
                *("--time_based", "--runtime=600", "--refill_buffers", "--log_unix_epoch=1"),
                *("--buffer_compress_percentage=50", "--buffer_compress_chunk=4096"),
                f"--write_lat_log={folder / 'light'}",
            ],
            self._said,
        )

    def end(self) -> list[Sample]:
        """Its reads.  RuntimeError where it has ended by itself, as after an error of a request."""
        if self._fio.status is not None:
            raise RuntimeError(f"fio: {self._fio.ending}: {self._said.read_text()[:500].strip()}")
        self._fio.stop(signal.SIGINT, END_SECONDS)
        lines = (self.folder / "light_clat.1.log").read_text().splitlines()
        words = ([int(word) for word in line.split(",")] for line in lines)
        # The third word is 0 for a read.
        return [Sample(at, taken / 1000) for at, taken, access, *_ in words if access == 0]

    def kill(self) -> None:
        self._fio.kill()


@contextmanager
def light_load(arguments: Sequence[str], parent: Path) -> Iterator[LightLoad]:
    folder = Path(tempfile.mkdtemp(prefix="fio-", dir=parent))
    load = LightLoad(arguments, folder)
    try:
        time.sleep(QUIET_SECONDS / 2)  # it starts, and makes its first reads
        yield load
    finally:
        load.kill()
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Seen:
    """Times of reads, in microseconds, before something, while it went on, and after it."""

    before: list[float]
    during: list[float]
    after: list[float]


def seen(samples: list[Sample], window: Window) -> Seen:
    def between(start: float, end: float) -> list[float]:
        return [sample.taken for sample in samples if start <= sample.at < end]

    rest = QUIET_SECONDS * 1000
    return Seen(
        between(window.start - rest, window.start),
        between(window.start, window.end),
        # Half a second for the disk to come to rest.
        between(window.end + 500, math.inf),
    )


def seen_of_shrink(server: LoadedServer, folder: Path) -> Seen:
    """By a client whose pages go from memory to disk meanwhile: after it, the disk serves all."""
    disk = ["--ioengine=nbd", f"--uri={server.uri}", f"--offset={START}"]
    with light_load(disk, folder) as load:
        time.sleep(QUIET_SECONDS)
        _, window = shrink(server.client)
        time.sleep(QUIET_SECONDS)
        return seen(load.end(), window)


def seen_of_dd(source: Path, disk: Path, folder: Path) -> Seen:
    """By whoever reads a plain file past the page cache: what the disk itself costs them."""
    target, plain = disk / "dd", disk / "plain"
    subprocess.run(dd_command(source, plain, FILLED), check=True, stderr=subprocess.DEVNULL)
    arguments = ["--ioengine=psync", "--direct=1", f"--filename={plain}"]
    try:
        with light_load(arguments, folder) as load:
            time.sleep(QUIET_SECONDS)
            start = milliseconds()
            subprocess.run(
                dd_command(source, target, FILLED), check=True, stderr=subprocess.DEVNULL
            )
            window = Window(start, milliseconds())
            time.sleep(QUIET_SECONDS)
            return seen(load.end(), window)
    finally:
        target.unlink(missing_ok=True)
        plain.unlink()
