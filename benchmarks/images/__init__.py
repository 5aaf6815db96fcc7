# SPDX-License-Identifier: BSD-3-Clause
"""Section `images`: many guests from one image, by who serves it.

What a real Debian read of its root disk while it booted is replayed by 1, 4 and 8 clients at once,
cold and warm, over preswapd's precache, other NBD servers, and the file itself, past the page cache
and through it; and again from a disk of 3,000 requests a second.  Then what a miss and a hit cost,
and what a burst of swap finds where an image's pages are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.images import boots, burst, misses
from benchmarks.images.contenders import CACHED, CONTENDERS, OURS
from benchmarks.images.disks import disk_of_its_own, disk_or_folder
from benchmarks.images.recording import Recording, make_image, recorded
from benchmarks.images.shown import table
from benchmarks.sections import Figures, Progress
from benchmarks.servers import folders
from preswapd.guest.faults import SetupError

__all__ = ["measure", "table"]

MIB = 1 << 20
REQUESTS_PER_SECOND = 3000


@dataclass(frozen=True)
class Size:
    """`speed`: what thinking times are divided by; `dense`: of the image for misses and hits."""

    speed: float
    clients: Sequence[int]
    limited_clients: Sequence[int]
    limited_contenders: Sequence[str]
    dense: int
    rounds: int
    pool: int  # of the burst


EVERYBODY = tuple(one.name for one in CONTENDERS)
FULL = Size(8.0, (1, 4, 8), (8,), EVERYBODY, 256 * MIB, 3, 128 * MIB)
QUICK = Size(200.0, (1, 2), (1,), (CACHED, OURS), 16 * MIB, 1, 48 * MIB)


def measure(progress: Progress, quick: bool) -> Figures:
    size = QUICK if quick else FULL
    recording = recorded()
    with folders() as (_, folder):
        with disk_or_folder(recording.size + size.dense, folder) as (disk, own_disk):
            image, dense = disk / "image", disk / "dense"
            progress("images: the images are made")
            make_image(recording, image)
            misses.make_dense_image(recording, dense, size.dense)
            found: Figures = {
                "speed": size.speed,
                "recording": described(recording),
                "own_disk": own_disk,
                "boots": by_contender(progress, image, EVERYBODY, size.clients, size.speed),
                "misses": misses.measure(progress, dense, size.rounds),
            }
        found["limited"] = on_limited_disk(progress, recording, size, folder)
        progress("images: a burst of swap")
        dense = folder / "dense"
        misses.make_dense_image(recording, dense, 3 * size.pool)
        found["burst"] = burst.measure(dense, size.pool)
        return found


def described(recording: Recording) -> Figures:
    return {
        "size": recording.size,
        "reads": len(recording.reads),
        "bytes": sum(read.length for read in recording.reads),
        "pages": len(recording.pages),
        "thinking": sum(read.waited for read in recording.reads) / 1e6,
    }


def by_contender(
    progress: Progress,
    image: Path,
    names: Sequence[str],
    clients: Sequence[int],
    speed: float,
    *,
    warm: bool = True,
    note: str = "",
) -> Figures:
    """By the number of clients, and by contender."""
    found: Figures = {}
    for number in clients:
        of_number = found[str(number)] = {}
        for contender in CONTENDERS:
            if contender.name in names:
                progress(f"images: {number} at once, {contender.name}{note}")
                of_number[contender.name] = boots.boots(contender, image, number, speed, warm=warm)
    return found


def on_limited_disk(progress: Progress, recording: Recording, size: Size, folder: Path) -> Figures:
    """`missing` says why not, where that is not possible."""
    try:
        with disk_of_its_own(recording.size, folder, REQUESTS_PER_SECOND) as disk:
            image = disk / "image"
            make_image(recording, image)
            found = by_contender(
                progress,
                image,
                size.limited_contenders,
                size.limited_clients,
                size.speed,
                warm=False,
                note=f", {REQUESTS_PER_SECOND} requests a second",
            )
    except SetupError as error:
        return {"missing": str(error)}
    return {"requests": REQUESTS_PER_SECOND, "boots": found}
