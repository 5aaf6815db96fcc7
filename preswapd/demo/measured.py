# SPDX-License-Identifier: BSD-3-Clause
"""The figures of the server and the guest at one moment, and as one line."""

from dataclasses import astuple, dataclass

from preswapd.api.figures import Statistics
from preswapd.guest.readings import SwapArea
from preswapd.units import PAGE_SIZE, format_size


@dataclass(frozen=True)
class Counters:
    """What happened since a server's start, in pages; those of two lives can be added."""

    stored: int = 0
    rejected: int = 0
    read_from_tmem: int = 0
    read_from_disk: int = 0
    disk_errors: int = 0
    checksum_errors: int = 0
    made_room: int = 0
    came_back: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Counters(*(mine + theirs for mine, theirs in pairs))

    @property
    def written(self) -> int:
        return self.stored + self.rejected

    @property
    def read(self) -> int:
        return self.read_from_tmem + self.read_from_disk


@dataclass(frozen=True)
class Figures:
    """A server at one moment; sizes in bytes."""

    counters: Counters
    requests: int
    tmem_pages: int
    disk_pages: int
    compressed: int
    memory: int

    @property
    def kept(self) -> int:
        return self.tmem_pages + self.disk_pages

    @property
    def original(self) -> int:
        return self.tmem_pages * PAGE_SIZE

    @property
    def ratio(self) -> float:
        """By how much pages are larger than what they were compressed to."""
        return self.original / self.compressed if self.compressed else 0.0


def figures(stats: Statistics, name: str) -> Figures:
    """Of what `preswapctl --json stats` prints."""
    tmem, device = stats["tmem"], stats["devices"][name]
    counters = Counters(
        stored=device["succ_stores"],
        rejected=device["failed_stores"],
        read_from_tmem=device["loads"],
        read_from_disk=device["disk_reads"],
        disk_errors=device["disk_errors"],
        checksum_errors=tmem["checksum_errors"],
        made_room=device.get("written_back_room", 0),
        came_back=device.get("promoted_pages", 0),
    )
    return Figures(
        counters,
        requests=device["read_requests"] + device["write_requests"],
        tmem_pages=device["preswap_pages"],
        disk_pages=device["disk_pages"],
        compressed=tmem["compr_data_size"],
        memory=tmem["mem_used_total"],
    )


def live_line(seconds: float, now: Figures, areas: list[SwapArea], pool_size: int) -> str:
    used = sum(area.used for area in areas)
    return "  ".join(
        [
            f"{seconds:4.0f} s",
            f"guest swap {format_size(used):>6}",
            f"in tmem {now.tmem_pages:6} pages",
            f"on disk {now.disk_pages:6}",
            f"ratio {now.ratio:.2f}",
            f"host memory {format_size(now.memory)} of {format_size(pool_size)}",
        ]
    )
