# SPDX-License-Identifier: BSD-3-Clause
"""`admit = "second"`: what is read once takes no memory, and what is read again does."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.conftest import SIZE
from tests.precache.running import MIB, Shown, content, read, shown

CONTENT = content(SIZE)
PAGES = -(-SIZE // PAGE)
# Pages that are remembered, where no more than a MiB may be cached.
WINDOW = MIB // PAGE


@pytest.fixture
def second(path: Path) -> Iterator[Shown]:
    with shown(path, admit="second") as made:
        yield made


def test_second_read_caches(second: Shown) -> None:
    client = second.connect()
    assert read(client, 0, SIZE) == CONTENT
    assert (second.stats["puts"], second.stats["cached_pages"]) == (0, 0)
    assert read(client, 0, SIZE) == CONTENT
    assert (second.stats["puts"], second.stats["cached_pages"]) == (PAGES, PAGES)
    assert read(client, 0, SIZE) == CONTENT
    assert (second.stats["hits"], second.stats["disk_reads"]) == (PAGES, 2 * PAGES)
    assert second.stats["admit"] == "second"


def test_each_page_by_itself(second: Shown) -> None:
    client = second.connect()
    read(client, 5 * PAGE, PAGE)
    read(client, 3 * PAGE, 10 * PAGE)
    assert second.stats["cached_pages"] == 1
    before = second.stats["hits"]
    assert read(client, 3 * PAGE, 10 * PAGE) == CONTENT[3 * PAGE : 13 * PAGE]
    assert second.stats["hits"] - before == 1
    assert second.stats["cached_pages"] == 10


def test_part_of_a_page_is_a_read(second: Shown) -> None:
    client = second.connect()
    read(client, 100, 10)
    read(client, 3000, 10)
    assert second.stats["cached_pages"] == 1


def test_whose_second_read_does_not_matter(second: Shown) -> None:
    read(second.connect(), 0, PAGE)
    read(second.connect(), 0, PAGE)
    assert second.stats["cached_pages"] == 1


def test_reading_on_takes_no_memory(second: Shown) -> None:
    """Pages are not read ahead that would not be cached: they would be read twice."""
    client = second.connect()
    for at in range(0, SIZE, 4 * PAGE):
        assert read(client, at, min(4 * PAGE, SIZE - at)) == CONTENT[at:][: 4 * PAGE]
    assert second.stats["disk_reads"] == PAGES
    assert second.stats["cached_pages"] == 0


def test_reading_on_again_reads_ahead(second: Shown) -> None:
    client = second.connect()
    read(client, 0, SIZE)
    before = second.stats["misses"]
    for at in range(0, SIZE, 4 * PAGE):
        assert read(client, at, min(4 * PAGE, SIZE - at)) == CONTENT[at:][: 4 * PAGE]
    assert second.stats["disk_reads"] == 2 * PAGES
    assert second.stats["cached_pages"] == PAGES
    assert second.stats["misses"] - before < PAGES // 4


def test_reads_ahead_end_where_nothing_is_known(second: Shown) -> None:
    client = second.connect()
    read(client, 0, 20 * PAGE)
    before = second.stats["disk_reads"]
    read(client, 0, 8 * PAGE)
    read(client, 8 * PAGE, 8 * PAGE)  # reads on: 4 more are known
    assert second.stats["disk_reads"] - before == 20
    assert second.stats["cached_pages"] == 20


def test_forgotten_after_other_reads(path: Path) -> None:
    """One to two windows of them; time does not count."""
    with shown(path, cache=MIB, admit="second") as image:
        client = image.connect()
        read(client, 0, PAGE)
        image.clock[0] += 86400
        for page in range(1, WINDOW):
            read(client, page * PAGE, PAGE)
        read(client, 0, PAGE)
        assert image.stats["cached_pages"] == 1
    with shown(path, cache=MIB, admit="second") as image:
        client = image.connect()
        read(client, 0, PAGE)
        for page in range(1, 2 * WINDOW + 1):
            read(client, page * PAGE, PAGE)
        read(client, 0, PAGE)
        assert image.stats["cached_pages"] == 0


def test_scans_of_more_than_could_be_cached_cache_nothing(path: Path) -> None:
    """However often: each page would have gone before it was read again."""
    with shown(path, cache=MIB, admit="second") as image:
        client = image.connect()
        for _ in range(4):
            assert read(client, 0, SIZE) == CONTENT
        assert image.stats["cached_pages"] == 0


def test_scan_leaves_what_is_read_often(path: Path) -> None:
    with shown(path, cache=MIB, admit="second") as image:
        client = image.connect()
        for _ in range(2):
            read(client, 0, 100 * PAGE)
        read(client, 0, SIZE)
        before = image.stats["disk_reads"]
        assert read(client, 0, 100 * PAGE) == CONTENT[: 100 * PAGE]
        assert image.stats["disk_reads"] == before


def test_write_is_no_read(path: Path) -> None:
    """It keeps cached what was, and caches nothing else."""
    with shown(path, writable=True, admit="second") as disk:
        client = disk.connect()
        new = content(4 * PAGE, 2)
        for _ in range(3):
            client.pwrite(new, 0, 0)
        read(client, 0, 4 * PAGE)
        assert disk.stats["cached_pages"] == 0
        read(client, 0, 2 * PAGE)
        client.pwrite(new, PAGE, 0)
        assert disk.stats["cached_pages"] == 2
        before = disk.stats["disk_reads"]
        assert read(client, 0, 2 * PAGE) == new[:PAGE] + new[:PAGE]
        assert disk.stats["disk_reads"] == before
        assert path.read_bytes()[: 5 * PAGE] == new[:PAGE] + new


def test_change_of_the_file_is_seen(second: Shown) -> None:
    client = second.connect()
    for _ in range(2):
        read(client, 0, SIZE)
    second.change(b"new", 10)
    assert read(client, 0, PAGE)[10:13] == b"new"
    second.settle()
    for _ in range(3):
        assert read(client, 0, PAGE)[10:13] == b"new"
    assert second.stats["cached_pages"] == 1


def test_pages_that_share_bits(tmp_path: Path) -> None:
    """A very large image's: few pages are cached a read too early, and none a read too late."""
    large = tmp_path / "large.raw"
    large.touch()
    with open(large, "r+b") as file:
        file.truncate(200 << 30)
    with shown(large, admit="second") as image:
        client = image.connect()
        pages = random.Random(1).sample(range(200 << 18), 2000)
        for page in pages:
            read(client, page * PAGE, PAGE)
        assert image.stats["cached_pages"] < 100
        for page in pages:
            read(client, page * PAGE, PAGE)
        assert image.stats["cached_pages"] == 2000


def test_many_at_once(second: Shown) -> None:
    """Of all that want a page at the same time the first two read it."""
    clients = [second.connect() for _ in range(6)]
    with ThreadPoolExecutor(len(clients)) as pool:
        for found in pool.map(lambda client: read(client, 0, 512 * PAGE), clients):
            assert found == CONTENT[: 512 * PAGE]
    assert second.stats["disk_reads"] == 2 * 512
    assert second.stats["cached_pages"] == 512
