# SPDX-License-Identifier: BSD-3-Clause
"""Pages that another server pulls (`create --from`), beside nbdcopy between the same two servers.

Each over a Unix socket, over TCP and over TLS, all on this host: what the way costs, without a
network.  nbdcopy takes the device's whole content, as zeros where nothing was written; a pull asks
first what there is, and has it all when the guest at the target may use it.  nbdcopy to nowhere is
what any client gets over that way.
"""

import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import storing
from benchmarks.capture import captured
from benchmarks.moving.ends import (
    COPIES,
    DEVICE,
    QUICK_COPIES,
    QUICK_ROUNDS,
    ROUNDS,
    Ends,
    both,
    empty,
    fill,
    held,
    run,
)
from benchmarks.moving.keys import make_keys
from benchmarks.sections import Figures, Progress
from benchmarks.servers import Running
from benchmarks.text import MIB, columns
from preswapd.units import PAGE_SIZE

CODEC = "lz4"
# Nobody else on this host is taken to listen there.
PORT = 20809
UNIX, TCP, TLS = "Unix socket", "TCP", "TLS"
NOWHERE, COPY, PULL = "nbdcopy to nowhere", "nbdcopy into the target", "pull"
COMMANDS = (NOWHERE, COPY, PULL)


def measure(progress: Progress, quick: bool) -> Figures:
    pages, contents = captured(quick, progress)
    copies, rounds = (QUICK_COPIES, QUICK_ROUNDS) if quick else (COPIES, ROUNDS)
    size = copies * pages.stat().st_size
    found = {}
    with tempfile.TemporaryDirectory(prefix="preswapd-keys-") as folder:
        keys = make_keys(Path(folder))
        for way in (UNIX, TCP, TLS):
            with both(CODEC, size, options_of(way, keys)) as ends:
                seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
                for number in range(rounds):
                    progress(f"{way}: {number + 1} of {rounds}")
                    # The pull before has taken what was there.
                    fill(ends.source, pages, copies)
                    move(ends, uri_of(way, ends, keys), seconds)
            found[way] = seconds
    return {"bytes": size, "programs": contents["programs"], "seconds": found}


def options_of(way: str, keys: Path) -> Sequence[str]:
    if way == UNIX:
        return ()
    listen = f"--listen=127.0.0.1:{PORT}"
    if way == TCP:
        return (listen,)
    return (listen, "--tls-mode=x509", f"--tls-certificates={keys}")


def uri_of(way: str, ends: Ends, keys: Path) -> str:
    if way == UNIX:
        return ends.source.uri
    place = f"127.0.0.1:{PORT}/{DEVICE}"
    return f"nbd://{place}" if way == TCP else f"nbds://{place}?tls-certificates={keys}"


def move(ends: Ends, uri: str, seconds: dict[str, list[float]]) -> None:
    """Adds what each takes, once."""
    there = held(ends.source)
    with timed(seconds[NOWHERE]):
        subprocess.run(["nbdcopy", uri, "null:"], check=True)
    with timed(seconds[COPY]):
        subprocess.run(["nbdcopy", uri, ends.target.uri], check=True)
    empty(ends.target)
    run(ends.target, "create", DEVICE, str(size_of(ends)), "--from", uri, "--yes")
    with storing.connected(ends.target) as guest, timed(seconds[PULL]):
        # The first change takes the source.  What is there was zeros before.
        guest.zero(PAGE_SIZE, storing.START - PAGE_SIZE)
        run(ends.target, "pull", DEVICE)
    check(there, ends.target)
    empty(ends.target)


def size_of(ends: Ends) -> int:
    return int(ends.source.device()["size"])


def check(there: int, target: Running) -> None:
    if (came := held(target)) != there:
        raise RuntimeError(f"{there} pages were there, and {came} came")


@contextmanager
def timed(found: list[float]) -> Iterator[None]:
    begun = time.monotonic()
    yield
    found.append(time.monotonic() - begun)


def table(figures: Figures) -> str:
    size, seconds = figures["bytes"], figures["seconds"]
    medians = {
        way: {name: statistics.median(times) for name, times in found.items()}
        for way, found in seconds.items()
    }
    rows = [
        (
            way,
            *(f"{size / MIB / found[name]:.0f}" for name in COMMANDS),
            f"{found[COPY] / found[PULL]:.2f}",
            f"{medians[TCP][PULL] / found[PULL]:.2f}",
        )
        for way, found in medians.items()
    ]
    rounds = len(next(iter(seconds.values()))[PULL])
    of = f"{size / MIB:.0f} MiB of real ones, medians of {rounds}"
    heads = ("", *COMMANDS, "pull / nbdcopy", "pull / pull over TCP")
    return columns(f"MiB/s of pages between two servers, {of}", heads, rows)
