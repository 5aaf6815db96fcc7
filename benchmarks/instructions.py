# SPDX-License-Identifier: BSD-3-Clause
"""Instructions that a server executes for a page, by whose code they are: callgrind counts them.

    python -m benchmarks.instructions [--threads N ...] [--requests N]

They do not depend on what else the machine does, as seconds do.  What they leave out: the kernel,
and what an instruction waits for (a copy of a page is few instructions and many misses).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nbd

from benchmarks.servers import Running, Server, end, folders, prepare, serving_from, start
from benchmarks.storing import connected
from benchmarks.text import columns
from benchmarks.threads import ours, peer
from preswapd.host.nbdkit import THREADS
from preswapd.units import PAGE_SIZE

COUNTS = (1, THREADS)
REQUESTS = 2000
DEPTH = 16
START = 8 << 20
# A start under valgrind takes a minute on a busy machine.
START_SECONDS = 180.0
# Valgrind has its share of the processor while all threads sleep.
REST_SECONDS, REST_SHARE = 1.0, 0.05
HALF = bytes(PAGE_SIZE // 2)

# Whose code a file is, by the first pattern that its name has; what is left is "other".
OWNERS = (
    ("ours", r"_(callbacks|device|image|tmem|export|table|blocks)\."),
    ("nbdkit", r"nbdkit"),
    ("Python", r"libpython|python3"),
    ("codecs, checksum", r"lib(lz4|zstd|xxhash)"),
    ("C library", r"libc\.so|libpthread|ld-linux"),
)
OTHER = "other"
AFTERWARDS = "afterwards"
HEADS = ("", "all", *(owner for owner, _ in OWNERS), OTHER, AFTERWARDS)


@dataclass(frozen=True)
class Load:
    name: str
    writes: bool
    pages: int


LOADS = (
    Load("4 KiB read", False, 1),
    Load("4 KiB write", True, 1),
    Load("128 KiB write", True, 32),
)


def main() -> None:
    arguments = parsed()
    # Valgrind counts each byte of these as an instruction.
    limits = ("rep_movsb", "rep_stosb")
    os.environ["GLIBC_TUNABLES"] = ":".join(
        f"glibc.cpu.x86_{n}_threshold={1 << 30}" for n in limits
    )
    rows: dict[str, list[list[str]]] = {load.name: [] for load in LOADS}
    for count in arguments.threads:
        for server in (ours(count), peer(count)):
            print(server.name, file=sys.stderr)
            for load, found in counted(server, arguments.requests):
                rows[load.name].append(row(server.name, found))
    for name, lines in rows.items():
        print(columns(f"{name}, instructions a page", HEADS, lines), end="\n\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=COUNTS, metavar="N", help="for a connection"
    )
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of each load")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not here: apt-get install valgrind")
    return arguments


def row(name: str, found: Mapping[str, float]) -> list[str]:
    """`all` is what the request waits for; what is done afterwards stands beside it."""
    amounts = {"all": sum(n for who, n in found.items() if who != AFTERWARDS), **found}
    return [name, *(f"{amounts.get(head, 0):,.0f}" for head in HEADS[1:])]


# --- the server under callgrind ---


def counted(server: Server, requests: int) -> Iterator[tuple[Load, dict[str, float]]]:
    """Of each load, on pages that were all written before."""
    with tempfile.TemporaryDirectory() as scratch, folders() as (folder, disk):
        out = Path(scratch) / "out"
        command = (
            *("valgrind", "--tool=callgrind", "--trace-children=yes", "--instr-atstart=no"),
            *("--separate-threads=yes", "--compress-strings=no", "--compress-pos=no"),
            *(f"--callgrind-out-file={out}.%p", *server.command),
        )
        slow = replace(server, command=command)
        prepare(slow, folder, disk)
        child = start(slow, folder, disk)
        try:
            serving = serving_from(slow, folder, child, START_SECONDS)
            for load in LOADS:
                requested(serving, replace(load, writes=True), requests)
                rest(serving)
                control(serving, "--instr=on")
                requested(serving, load, requests)
                rest(serving)
                control(serving, "--instr=off")
                control(serving, "--dump")
                files = [path for path in out.parent.iterdir() if path.stat().st_size]
                yield load, per_page(files, requests * load.pages)
                for path in files:
                    path.unlink()
        finally:
            end(slow, folder, child)


def control(serving: Running, what: str) -> None:
    command = ["callgrind_control", what, str(serving.process)]
    subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)


def rest(serving: Running) -> None:
    """Until it does nothing any more: to ask it would count, too."""
    before = -1.0
    while (now := serving.cpu()) - before > REST_SHARE * REST_SECONDS:
        before = now
        time.sleep(REST_SECONDS)


def requested(serving: Running, load: Load, requests: int) -> None:
    """So many requests, in order: which page it is changes nothing that is counted."""
    size = load.pages * PAGE_SIZE
    page = os.urandom(PAGE_SIZE // 2) + HALF
    buffers = [nbd.Buffer.from_bytearray(bytearray(page * load.pages)) for _ in range(DEPTH)]
    with connected(serving) as handle:
        send = handle.aio_pwrite if load.writes else handle.aio_pread
        for number in range(requests):
            while handle.aio_in_flight() >= DEPTH:
                handle.poll(-1)
            at = START + number * size % (256 << 20)
            send(buffers[number % DEPTH], at, completion=lambda error: 1)
        while handle.aio_in_flight():
            handle.poll(-1)


# --- what callgrind wrote: a file for each thread ---


def per_page(files: Sequence[Path], pages: int) -> dict[str, float]:
    """A thread in which nbdkit does nothing works afterwards, and is none of its workers."""
    found: Counter[str] = Counter()
    for path in files:
        by_owner = by_owners(path.read_text())
        if by_owner["nbdkit"]:
            found += by_owner
        else:
            found[AFTERWARDS] += by_owner.total()
    return {owner: count / pages for owner, count in found.items()}


def by_owners(profile: str) -> Counter[str]:
    """Each line of costs belongs to the last `ob=` before it, but for the one behind `calls=`."""
    found: Counter[str] = Counter()
    owner, is_call = OTHER, False
    for line in profile.splitlines():
        if line.startswith("ob="):
            owner = owner_of(line[3:])
        elif line.startswith("calls="):
            is_call = True
        elif cost := re.match(r"[-+*\d]\S* (\d+)$", line):
            found[owner] += 0 if is_call else int(cost[1])
            is_call = False
    return found


def owner_of(file: str) -> str:
    name = file.rpartition("/")[2]
    return next((owner for owner, pattern in OWNERS if re.search(pattern, name)), OTHER)


if __name__ == "__main__":
    main()
