# SPDX-License-Identifier: BSD-3-Clause
"""The section `images`: its recording, the client that replays it, and what is reckoned."""

import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import targets
from benchmarks.host_usage import drop_from_page_cache, in_page_cache
from benchmarks.images import misses, player, shown
from benchmarks.images.contenders import CACHED, CONTENDERS, DIRECT, NBDKIT, OURS
from benchmarks.images.disks import READS, disk_of_its_own
from benchmarks.images.recording import (
    LARGEST,
    UNIT,
    Read,
    Recording,
    make_image,
    page_of,
    parsed,
    recorded,
)
from preswapd.tmem import PERSISTENT, Host
from preswapd.units import PAGE_SIZE
from tests.scan.record_boot import reads

MIB = 1 << 20
SMALL = Recording(
    8 * PAGE_SIZE,
    {0: 30, 1: LARGEST, 2: 0, 5: 100},
    [Read(0, 0, 0, 3 * PAGE_SIZE), Read(500, 1, 4096, 4096), Read(0, 0, 5 * PAGE_SIZE - 512, 1024)],
)
LOG = """\
2026-11-28 16:40:00.000100 connection=1 Connect export='' tls=0 size=0x1000
2026-11-28 16:40:00.000200 connection=1 Read id=1 offset=0x0 count=0x200 ...
2026-11-28 16:40:00.000300 connection=1 ...Read id=1 return=0
2026-11-28 16:40:00.001300 connection=1 Read id=2 offset=0x1000 count=0x2000 ...
2026-11-28 16:40:00.001400 connection=1 Read id=3 offset=0x8000 count=0x1000 ...
2026-11-28 16:40:00.001700 connection=1 ...Read id=3 return=0
2026-11-28 16:40:00.001800 connection=1 ...Read id=2 return=0
2026-11-28 16:40:01.001800 connection=1 Read id=4 offset=0x0 count=0x200 ...
"""


# --- the recording ---


def test_recording_is_small_and_whole() -> None:
    found = recorded()
    assert len(found.reads) > 1000
    assert found.pages <= found.sizes.keys(), "what is read is known"
    assert all(read.offset + read.length <= found.size for read in found.reads)
    sizes = [found.sizes[page] for page in found.pages]
    assert 0.3 < sum(sizes) * UNIT / len(sizes) / PAGE_SIZE < 0.8


def test_log_of_nbdkit_becomes_reads() -> None:
    assert [tuple(read) for read in reads(LOG.splitlines())] == [
        (0, 0, 0, 0x200),
        (1000, 0, 0x1000, 0x2000),
        (100, 1, 0x8000, 0x1000),
        (1_000_000, 0, 0, 0x200),
    ]


def test_lines_are_parsed() -> None:
    found = parsed(["# x\n", "S 8192\n", "P 7 00ff10\n", "R 12 1 4096 512\n"])
    assert found == Recording(8192, {7: 0, 8: 0xFF, 9: 0x10}, [Read(12, 1, 4096, 512)])


@pytest.mark.parametrize("size", [1, 8, 60, 128, 200, 254])
def test_page_compresses_as_recorded(size: int, tmp_path: Path) -> None:
    host = Host(Path("/dev/shm") / f"preswapd-test-{os.getpid()}", limit=64 * MIB, create=True)
    try:
        pool = host.new_pool(flags=PERSISTENT)
        for page in range(20):
            assert host.put_page(pool, 0, page, page_of(page + 1, size), compress="lz4")
        found = host.stats()["compr_data_size"] / 20
    finally:
        host.close()
        os.unlink(f"/dev/shm/preswapd-test-{os.getpid()}")
    assert abs(found - size * UNIT) <= max(0.03 * size * UNIT, 3 * UNIT)


# --- the client ---


class Made:
    """A disk in memory; who waits for less than `slow` waits in vain.  The last comes first."""

    def __init__(self, content: bytes, slow: float = 0.0) -> None:
        self.content = content
        self.slow = slow
        self.most = 0
        self.under_way: list[Read] = []

    def send(self, read: Read) -> None:
        self.under_way.append(read)
        self.most = max(self.most, len(self.under_way))

    def answered(self, seconds: float | None) -> list[tuple[Read, memoryview]]:
        if seconds is not None and seconds < self.slow:
            time.sleep(seconds)
            return []
        read = self.under_way.pop()
        return [(read, memoryview(self.content[read.offset : read.offset + read.length]))]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make_image(SMALL, tmp_path / "image")
    return tmp_path / "image"


def test_reads_are_under_way_together_as_recorded(made: Path) -> None:
    disk = Made(made.read_bytes(), 60.0)
    found = player.play(disk, SMALL, 1.0)
    assert disk.most == 2
    assert disk.under_way == []
    assert found["seconds"] >= 0.0005, "the thinking"


@pytest.mark.parametrize("kind", ["cached", "direct"])
def test_file_is_read_right(made: Path, kind: str) -> None:
    assert player.play(player.opened(f"{kind}:{made}"), SMALL, 100.0)["waited"] > 0


@pytest.mark.parametrize(("page", "named"), [(1, "page 1 is page 9"), (2, "page 2 is page 9")])
def test_page_of_another_place_is_noticed(made: Path, page: int, named: str) -> None:
    with made.open("r+b") as file:
        file.seek(page * PAGE_SIZE)
        file.write(page_of(9, 30))
    with pytest.raises(ValueError, match=named):
        player.play(Made(made.read_bytes()), SMALL, 1.0)


def test_file_that_ends_too_soon_is_noticed(made: Path) -> None:
    os.truncate(made, PAGE_SIZE)
    with pytest.raises(OSError, match="end too soon"):
        player.play(player.opened(f"cached:{made}"), SMALL, 100.0)


# --- what is seen of the host ---


def test_page_cache_of_a_file(tmp_path: Path) -> None:
    path = Path(__file__).parent.parent.parent / "build" / f"cached-{os.getpid()}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(MIB))
    try:
        assert in_page_cache(path) == MIB
        drop_from_page_cache(path)
        assert in_page_cache(path) == 0
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            os.pread(file.fileno(), 1, 0)
        assert PAGE_SIZE <= in_page_cache(path) < MIB
    finally:
        path.unlink()


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or not READS.exists():
        pytest.skip("it takes root, and the blkio controller of cgroup v1")
    with disk_of_its_own(4 * MIB, tmp_path, 200) as folder:
        yield folder


def test_limited_disk_holds_its_readers_back(limited: Path) -> None:
    """Two hundred reads take a second, past the page cache and through it.

    Less what the kernel lets go at once after a pause: 0.2 s were seen on a busy machine.
    """
    path = limited / "file"
    path.write_bytes(os.urandom(4 * MIB))
    for flags in (os.O_DIRECT, 0):
        drop_from_page_cache(path)
        file = os.open(path, os.O_RDONLY | flags)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
        try:
            begun = time.monotonic()
            for page in range(0, 1000, 5):
                os.preadv(file, [mmap.mmap(-1, PAGE_SIZE)], page * PAGE_SIZE)
            assert time.monotonic() - begun > 0.5
        finally:
            os.close(file)


# --- what is reckoned ---


def booted(seconds: float, disk: int, **memory: int) -> dict[str, Any]:
    taken = {"cache": 0, "arena": 0, "process": 0, **memory}
    return {"seconds": seconds, "median": 1, "p99": 2, "disk": disk, "memory": taken}


def contenders(ours: float, disk: int) -> dict[str, Any]:
    found = {one.name: booted(10.0, 80 * MIB) for one in CONTENDERS}
    found[CACHED] = booted(10.0, 60 * MIB, cache=100 * MIB)
    found[OURS] = booted(ours, disk, arena=45 * MIB, process=10 * MIB)
    return {name: {"cold": one, "warm": one} for name, one in found.items()}


RATES = {
    one.name: {
        who: {"cold": [100.0, 90.0], "warm": [100.0, 100.0]} for who in (DIRECT, NBDKIT, OURS)
    }
    for one in misses.LOADS
}
BURST = {
    "seconds": 1.0,
    "cached_before": 30 * MIB,
    "cached_after": 0,
    "stores": 100,
    "rejected": 0,
    "disk_writes": 0,
}
FIGURES: dict[str, Any] = {
    "speed": 8.0,
    "recording": {"reads": 5, "bytes": MIB, "pages": 100, "thinking": 16.0},
    "own_disk": True,
    "boots": {"1": contenders(10.0, 50 * MIB), "8": contenders(10.4, 60 * MIB)},
    "limited": {"requests": 3000, "boots": {"8": contenders(9.0, 60 * MIB)}},
    "misses": RATES,
    "burst": {"pool": MIB, "size": MIB, "empty": BURST, "full": {**BURST, "rejected": 3}},
}


@pytest.mark.parametrize(
    ("name", "measured", "met"),
    [
        ("eight boots from one image, disk reads, to one boot's", "1.20", False),
        ("  host memory, to the page cache's", "0.55", True),
        ("  time, to the file in the page cache", "1.04", True),
        ("  the same, a disk of 3,000 requests a second", "0.90", True),
        ("a miss, depth 1, time to nbdkit file", "1.00", True),
        ("pages rejected in a burst of swap", "3", False),
    ],
)
def test_targets(name: str, measured: str, met: bool) -> None:
    found = [row for row in targets.rows({"images": FIGURES}) if row.name == name]
    assert [(row.measured, row.met) for row in found] == [(measured, met)]


def test_tables_say_who_took_what() -> None:
    text = shown.table(FIGURES)
    assert "3,000 requests a second" in text
    ours = next(line for line in text.splitlines() if line.strip().startswith(f"{OURS} "))
    assert ours.split() == [OURS, "1", "10.00", "1", "2", "50.0", "55.0", "0.0", "45.0", "10.0"]


def test_disk_that_cannot_be_limited_is_named() -> None:
    figures = {**FIGURES, "limited": {"missing": "it takes root"}}
    assert "a second: it takes root" in shown.table(figures)
    row = next(
        row
        for row in targets.rows({"images": figures})
        if row.name == "  the same, a disk of 3,000 requests a second"
    )
    assert row.met is None
