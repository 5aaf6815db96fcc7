# SPDX-License-Identifier: BSD-3-Clause
"""Who serves an image to many guests: preswapd, other NBD servers, and the file itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.host_usage import in_page_cache, private_bytes
from benchmarks.servers import Running, Server, nbdkit, preswapd, running
from preswapd.units import exact_size

OURS = "preswapd"
DIRECT, CACHED = "file, cache=none", "file, cache=writeback"
NBDKIT, FILTER = "nbdkit file", "nbdkit cache filter"
IMAGE = "base"
BLOCK = 512
CACHED_SECONDS, POLL_SECONDS = 20.0, 0.05
DELETED = " (deleted)"


@dataclass(frozen=True)
class Contender:
    """`server` makes one of the image's path and of the bytes of a pool; None: clients open the
    file themselves, in the way that `kind` says."""

    name: str
    server: Callable[[Path, int], Server] | None = None
    kind: str = "nbd"


CONTENDERS = (
    Contender(DIRECT, kind="direct"),
    Contender(CACHED, kind="cached"),
    Contender(NBDKIT, lambda image, pool: nbdkit_file(image)),
    Contender(FILTER, lambda image, pool: with_cache_filter(image)),
    Contender(OURS, lambda image, pool: serving_image(image, pool)),
)


def nbdkit_file(image: Path) -> Server:
    return nbdkit(NBDKIT, "--readonly", "file", str(image))


def with_cache_filter(image: Path) -> Server:
    """What it has read once lies in a file of its own; the filter's `cache` hides the plugin's,
    so the image's own pages are in the page cache as well."""
    kept = ("cache-on-read=true",)
    made = nbdkit(FILTER, "--readonly", "--filter=cache", "file", str(image), *kept)
    return replace(made, command=("env", "TMPDIR={disk}", *made.command))


def serving_image(image: Path, pool: int) -> Server:
    """With a swap device beside it."""
    made = preswapd("lz4", exact_size(pool), "1G", options=(f"--image={IMAGE}={image}",))
    return replace(made, name=OURS, export=IMAGE)


@contextmanager
def served(contender: Contender, image: Path, pool: int) -> Iterator["Served"]:
    if contender.server is None:
        yield Served(contender, image, None)
        return
    with running(contender.server(image, pool)) as serving:
        yield Served(contender, image, serving)


@dataclass(frozen=True)
class Served:
    contender: Contender
    image: Path
    serving: Running | None

    @property
    def disk(self) -> str:
        """For the player."""
        where = self.serving.uri if self.serving else self.image
        return f"{self.contender.kind}:{where}"

    def figures(self) -> dict[str, Any]:
        """Ours of the image; empty for others."""
        return self.serving.image() if self.serving and self.contender.name == OURS else {}

    def wait_until_cached(self) -> None:
        """As ours is once its file was seen unchanged for a while."""
        deadline = time.monotonic() + CACHED_SECONDS
        while not self.figures().get("cached", True):
            if time.monotonic() > deadline:
                raise RuntimeError("the image is not cached: it was changed a moment ago")
            time.sleep(POLL_SECONDS)

    def memory(self) -> dict[str, int]:
        """Bytes of the host that it takes: in the page cache, in an arena, by its process alone."""
        found = {"cache": in_page_cache(self.image), "arena": 0, "process": 0}
        if self.serving:
            found["cache"] += sum(map(in_page_cache, files_of_its_own(self.serving.process)))
            # An arena that nobody else has mapped is private as well.
            mapped = self.serving.resident()["shared"]
            found["process"] = max(private_bytes(self.serving.process) - mapped, 0)
            arenas = self.serving.folder.glob("shm/**/arena")
            found["arena"] = sum(path.stat().st_blocks * BLOCK for path in arenas)
        return found


def files_of_its_own(process: int) -> list[Path]:
    """Those that it has open and that have no name: nbdkit's cache filter has one."""
    opened = Path(f"/proc/{process}/fd").iterdir()
    found = [path for path in opened if str(path.readlink()).endswith(DELETED)]
    return [path for path in found if path.is_file() and path.stat().st_size]
