# SPDX-License-Identifier: BSD-3-Clause
"""What a read costs that is not in memory yet, and one that is, beside nbdkit's file plugin."""

import statistics
from pathlib import Path

from benchmarks import load
from benchmarks.host_usage import drop_from_page_cache
from benchmarks.images.contenders import CONTENDERS, DIRECT, NBDKIT, OURS, Served, served
from benchmarks.images.recording import Recording, page_of
from benchmarks.load import Load
from benchmarks.sections import Figures, Progress
from preswapd.units import PAGE_SIZE

COMPARED = (DIRECT, NBDKIT, OURS)
PART = 8
STATES = ("cold", "warm")
SINGLE, IN_ORDER = "4 KiB at random, depth 1", "128 KiB in order, depth 1"
LOADS = (
    Load(SINGLE, "randread", "--bs=4k", 1, start="0"),
    Load("4 KiB at random, depth 16", "randread", "--bs=4k", 16, start="0"),
    Load(IN_ORDER, "read", "--bs=128k", 1, start="0"),
)


def make_dense_image(recording: Recording, path: Path, size: int) -> None:
    """Its pages compress as those that were recorded, and none is a hole."""
    kinds = [kind for kind in recording.sizes.values() if kind]
    with path.open("wb") as file:
        for page in range(size // PAGE_SIZE):
            file.write(page_of(page, kinds[page % len(kinds)]))


def measure(progress: Progress, image: Path, rounds: int) -> Figures:
    """Requests a second, cold and warm, of each load, contender and round.

    Contenders take turns in each round, each with an empty memory: blocks of a part of the image
    are read once each, and once more.
    """
    found: Figures = {
        one.name: {name: {"cold": [], "warm": []} for name in COMPARED} for one in LOADS
    }
    for number in range(rounds):
        progress(f"images: misses and hits, round {number + 1} of {rounds}")
        for one in LOADS:
            for contender in (some for some in CONTENDERS if some.name in COMPARED):
                drop_from_page_cache(image)
                with served(contender, image, 2 * image.stat().st_size) as serving:
                    serving.wait_until_cached()
                    for state in STATES:
                        seen = requests_a_second(serving, one)
                        found[one.name][contender.name][state].append(seen)
                        if serving.serving:
                            serving.serving.settle()
    return found


def requests_a_second(serving: Served, one: Load) -> float:
    """The same blocks each time."""
    size = serving.image.stat().st_size
    plain = ["--ioengine=libaio", "--direct=1", f"--filename={serving.image}"]
    over_nbd = ["--ioengine=nbd", f"--uri={serving.serving.uri}"] if serving.serving else []
    # The page cache reads on where much of a file was read already, however little was asked for.
    part = f"--io_size={size // PART}"
    job = load.fio_on([*(over_nbd or plain), part], one, None, str(size))
    return float(job["read"]["iops"])


def slower(figures: Figures, name: str, state: str) -> float:
    """Our time for a request to nbdkit's, both in the same round; the median of the rounds."""
    ours, theirs = (figures[name][who][state] for who in (OURS, NBDKIT))
    rates = zip(ours, theirs, strict=True)
    return float(statistics.median(them / us for us, them in rates))
