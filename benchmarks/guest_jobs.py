# SPDX-License-Identifier: BSD-3-Clause
"""What guests do with too little memory: jobs of about 64 MiB each, whose results are checked.

xz       two and four at once with a large dictionary: random access to tables that hardly compress
sort     0.9 million words, as coreutils sort them: much memory, compressible, walked in order
store    an in-memory store (store.c): most requests go to a fifth of the records, each is verified

A compiler would be a fourth; a guest that holds one is larger than all the others together.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from preswapd.demo.material import MIB, gather
from preswapd.guest.programs import find

STORE_SOURCE = Path(__file__).with_name("store.c")
STORE = "/bin/store"
# Of 72 MiB that a guest has to spare, 4 xz, sort and store leave none, and swap under 2000 pages.
# With 100 MiB a guest was busy with itself for 25 s to swap what it swaps in 8 s with 64 MiB.
WORKING_SET = 64 * MIB

XZ_MIB = 1
XZ_MOST = 4
TEXT_MIB = 8
# LZMA2 with hash chains keeps 7 bytes for each byte of its dictionary, mostly tables.
XZ_OPTIONS = "--format=raw --threads=1 --lzma2=preset=0,dict=4MiB"
SORT_OPTIONS = "--parallel=2 --buffer-size=400M"
STORE_MIB = 64
STORE_REQUESTS = 60_000
STORE_WRITES = 20  # per cent
STORE_POPULAR = 20  # per cent of the records, which get 80 per cent of the requests
HOST_SECONDS = 120.0

MATERIAL = "/dev/vda"


@dataclass(frozen=True)
class GuestJob:
    """A shell command, and what it must print; None where it checks itself."""

    name: str
    command: str
    expected: str | None


@dataclass(frozen=True)
class Material:
    """What is the same for all guests: their jobs, programs, files, and the data on /dev/vda."""

    jobs: list[GuestJob]
    programs: list[Path]
    files: Mapping[str, bytes]
    disk: Path


def prepare(folder: Path) -> Material:
    """Writes the jobs' data into the folder, and lets this host say what must come out."""
    xz, sort = find("xz", "xz-utils"), find("sort", "coreutils")
    gathered = gather(XZ_MIB * XZ_MOST, TEXT_MIB)
    words = re.sub(rb"[^A-Za-z0-9_]+", b"\n", gathered.text)
    # The kernel shows a disk in whole sectors.
    words = words[: len(words) // MIB * MIB]
    disk = folder / "material"
    disk.write_bytes(gathered.files + words)
    jobs = [
        *(job(f"{n} xz", at_once(n, xz), disk) for n in (2, XZ_MOST)),
        job("sort", sorting(sort, len(gathered.files) // MIB, len(words) // MIB), disk),
        GuestJob("store", store(STORE_MIB, STORE_REQUESTS), None),
    ]
    return Material(jobs, [xz, sort], {STORE: built_store()}, disk)


def job(name: str, command: str, disk: Path) -> GuestJob:
    """The host runs the same command on the same data."""
    done = subprocess.run(
        ["sh", "-c", command.replace(MATERIAL, str(disk))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HOST_SECONDS,
        check=True,
    )
    return GuestJob(name, command, done.stdout)


def at_once(number: int, xz: Path) -> str:
    """So many compressors, each with data of its own; prints the sums of what they made."""
    pipes = " & ".join(
        f"{taken(n * XZ_MIB, XZ_MIB)} | {xz} {XZ_OPTIONS} | sha256sum >/tmp/$$.{n}"
        for n in range(number)
    )
    files = " ".join(f"/tmp/$$.{n}" for n in range(number))
    return f"({pipes} & wait); cat {files}; rm {files}"


def sorting(sort: Path, skip: int, mib: int) -> str:
    return f"{taken(skip, mib)} | LC_ALL=C {sort} {SORT_OPTIONS} | sha256sum"


def taken(skip: int, mib: int) -> str:
    return f"dd if={MATERIAL} bs=1M skip={skip} count={mib} 2>/dev/null"


def store(
    mib: int,
    requests: int,
    writes: int = STORE_WRITES,
    popular: int = STORE_POPULAR,
    turn: int | None = None,
) -> str:
    words = (STORE, mib, requests, writes, popular, *(() if turn is None else (turn,)))
    return " ".join(map(str, words))


@dataclass(frozen=True)
class Served:
    """A line of the store: over how long, requests a second, percentiles in microseconds."""

    seconds: float
    rate: float
    p50: float
    p99: float
    p999: float


def served(line: str) -> Served:
    seconds, requests, p50, p99, p999 = (float(word) for word in line.split())
    return Served(seconds, requests / seconds if seconds else 0.0, p50, p99, p999)


def built_store() -> bytes:
    return built(STORE_SOURCE)


def built(source: Path) -> bytes:
    """The program, static: a guest has no C library of its own."""
    with tempfile.TemporaryDirectory(prefix="preswapd-bench-") as folder:
        program = Path(folder) / source.stem
        subprocess.run(
            ["cc", "-std=gnu11", "-O2", "-static", "-pthread", "-o", str(program), str(source)],
            check=True,
            timeout=HOST_SECONDS,
        )
        return program.read_bytes()
