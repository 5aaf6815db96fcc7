# SPDX-License-Identifier: BSD-3-Clause
"""One load: what fio sends over NBD, and what it measured."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.servers import Running
from preswapd.units import PAGE_SIZE

# Of the part of the disk that is read and written.
SIZE = "256m"
# A guest's pages lie behind what it reads when it looks for partitions, which preswapd has on disk.
START = "8m"
LIMIT_SECONDS = 300

# What pages hold.  "50 %" is half random bytes and half zeros in each page, which is what fio can
# make; FILLED is one byte repeated, and not a zero, which some servers make a hole of.
FILLED = "same-filled"
CONTENTS: Mapping[str, tuple[str, ...]] = {
    "0 %": ("--refill_buffers",),
    "50 %": ("--refill_buffers", "--buffer_compress_percentage=50"),
    "75 %": ("--refill_buffers", "--buffer_compress_percentage=75"),
    FILLED: ("--buffer_pattern=0x5a",),
}
# A guest reads 1 to 8 pages around the one that it misses, and writes some 31 pages in a request.
SWAP_READS = "4k/40:8k/20:16k/20:32k/20"
SWAP_WRITES = "128k/100"


@dataclass(frozen=True)
class Load:
    """A fio job: access and block options as fio has them, requests in flight."""

    name: str
    access: str
    blocks: str
    depth: int
    content: str = "50 %"
    start: str = START  # of the part of the disk

    def options(self, seconds: float | None) -> list[str]:
        """For so long, or once over the part of the disk."""
        timed = () if seconds is None else ("--time_based", f"--runtime={seconds * 1000:.0f}ms")
        return [
            *(f"--rw={self.access}", *self.blocks.split(), f"--iodepth={self.depth}"),
            *(f"--offset={self.start}", *CONTENTS[self.content], "--buffer_compress_chunk=4096"),
            *("--randrepeat=1", *timed),
        ]


def pages(name: str, access: str, depth: int, content: str = "50 %", start: str = START) -> Load:
    """Single pages."""
    return Load(name, access, "--bs=4k", depth, content, start)


# Writes every page once: first touches cost all servers more.
FILL = Load("fill", "write", "--bs=1m", 4)
INCOMPRESSIBLE = Load("fill", "write", "--bs=1m", 4, "0 %")


@dataclass(frozen=True)
class Measured:
    """One run of a load."""

    iops: float  # requests a second
    rate: float  # bytes a second
    median: float  # latency of a request, of the reads where there are both, in microseconds
    p99: float
    cpu: float  # the server's processor time for a page, in microseconds, what follows included
    settle: float  # seconds until the server had nothing left to do
    rejected: float  # of the pages written, the share that preswapd's pool did not take


def run(serving: Running, load: Load, seconds: float | None, size: str = SIZE) -> Measured:
    """Runs the load and waits until the server is done with it."""
    puts, rejected = counters(serving)
    cpu = serving.cpu()
    job = fio(serving.uri, load, seconds, size)
    settle = serving.settle()
    cpu = serving.cpu() - cpu
    now = counters(serving)
    return measured(job, cpu, settle, (now[1] - rejected) / max(now[0] - puts, 1))


def fio(uri: str, load: Load, seconds: float | None, size: str = SIZE) -> dict[str, Any]:
    """What fio says of the load, which it runs for so long or once over `size` bytes."""
    return fio_on(["--ioengine=nbd", f"--uri={uri}"], load, seconds, size)


def fio_on(disk: Sequence[str], load: Load, seconds: float | None, size: str) -> dict[str, Any]:
    """`disk`: the options that say which one, and how it is reached."""
    command = [
        *("fio", "--name=load", *disk, f"--size={size}"),
        *(*load.options(seconds), "--output-format=json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if done.returncode:
        raise RuntimeError(f"fio: {(done.stderr.strip() or done.stdout.strip())[-200:]}")
    job: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    return job


def measured(job: Mapping[str, Any], cpu: float, settle: float, rejected: float) -> Measured:
    ways = [job[way] for way in ("read", "write") if job[way]["total_ios"]]
    percentiles = ways[0]["clat_ns"]["percentile"]
    moved = sum(way["io_bytes"] for way in ways)
    return Measured(
        iops=sum(way["iops"] for way in ways),
        rate=sum(way["bw_bytes"] for way in ways),
        median=percentiles["50.000000"] / 1000,
        p99=percentiles["99.000000"] / 1000,
        cpu=1e6 * cpu / max(moved / PAGE_SIZE, 1),
        settle=settle,
        rejected=rejected,
    )


def counters(serving: Running) -> tuple[int, int]:
    """Pages offered to preswapd's pool so far, and those that it did not take; 0 for others."""
    tmem = serving.tmem()
    puts = tmem.get("puts", 0)
    return puts, puts - tmem.get("good_puts", puts)
