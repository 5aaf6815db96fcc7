"""One load: what fio sends over NBD, and what it measured."""

import json
import subprocess
from dataclasses import dataclass

SIZE = "256m"


@dataclass(frozen=True)
class Load:
    """A fio job: kind of access, bytes of a request, requests in flight."""

    access: str
    block: str
    depth: int
    compressible: int = 50  # per cent of each page

    @property
    def name(self) -> str:
        return f"{self.access} {self.block} depth {self.depth}"

    @property
    def reads(self) -> bool:
        return "read" in self.access


LOADS = (
    Load("randread", "4k", 16),
    Load("randwrite", "4k", 16),
    Load("randread", "4k", 1),
    Load("randwrite", "4k", 1),
    Load("randread", "32k", 16),
    Load("randwrite", "128k", 16),
)
# Every page is written once before anything is measured: first touches cost all servers more.
FILL = Load("write", "1m", 4)


@dataclass(frozen=True)
class Measured:
    """Requests a second; latency of one, in microseconds."""

    iops: float
    median: float
    p99: float


def run(uri: str, load: Load, seconds: float | None, size: str = SIZE) -> Measured:
    """Runs the load for so long, or once over the first `size` of the disk."""
    command = [
        *("fio", "--name=load", "--ioengine=nbd", f"--uri={uri}", f"--rw={load.access}"),
        *(f"--bs={load.block}", f"--iodepth={load.depth}", f"--size={size}", "--refill_buffers"),
        f"--buffer_compress_percentage={load.compressible}",
        *("--buffer_compress_chunk=4096", "--output-format=json", "--randrepeat=1"),
        *(() if seconds is None else ("--time_based", f"--runtime={seconds}")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    figures = job["read" if load.reads else "write"]
    percentiles = figures["clat_ns"]["percentile"]
    return Measured(
        figures["iops"], percentiles["50.000000"] / 1000, percentiles["99.000000"] / 1000
    )
