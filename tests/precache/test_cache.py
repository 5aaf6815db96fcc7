# SPDX-License-Identifier: BSD-3-Clause
"""`cache`: an image's pages take no more than that, and others lose nothing by it."""

from pathlib import Path

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.conftest import SIZE
from tests.precache.running import MIB, content, read, shown, watched

CONTENT = content(SIZE)
# Of pages that do not compress a third.
MOST = 512 << 10


@pytest.mark.parametrize("staged", [False, True])
def test_takes_no_more(path: Path, staged: bool) -> None:
    with shown(path, cache=MOST) as image:
        image.host.set_staging(staged)
        client = image.connect()
        for _ in range(3):
            for at in range(0, SIZE, 16 * PAGE):
                assert read(client, at, min(16 * PAGE, SIZE - at)) == CONTENT[at:][: 16 * PAGE]
                assert image.stats["cached_bytes"] <= MOST
                image.host.settle()
        stats = image.stats
        assert stats["cached_bytes"] > MOST - 2 * PAGE
        assert stats["evicted"] == stats["evicted_by_itself"] > 0
        assert stats["cache"] == MOST


def test_newest_stay(path: Path) -> None:
    with shown(path, cache=MOST) as image:
        client = image.connect()
        read(client, 0, SIZE)
        before = image.stats["hits"]
        pages = 150
        assert read(client, SIZE - pages * PAGE, pages * PAGE) == CONTENT[-pages * PAGE :]
        assert image.stats["hits"] - before == pages + 1


def test_what_is_read_again_stays(path: Path) -> None:
    with shown(path, cache=MOST) as image:
        client = image.connect()
        for at in range(0, SIZE - 8 * PAGE, 4 * PAGE):
            read(client, 0, 8 * PAGE)
            read(client, at, 4 * PAGE)
        before = image.stats["hits"]
        assert read(client, 0, 8 * PAGE) == CONTENT[: 8 * PAGE]
        assert image.stats["hits"] - before == 8


def test_takes_nobody_elses(path: Path, tmp_path: Path) -> None:
    """In a full pool too, where the oldest pages are another image's."""
    second = tmp_path / "second.raw"
    second.write_bytes(content(SIZE, 2))
    with shown(path, limit=5 * MIB) as image:
        other = watched(image.host, second, "lz4", image.log, image.clock, cache=MOST)
        image.clock[0] += 10
        other.look()
        assert read(image.connect(), 0, SIZE) == CONTENT
        client = other.connect()
        for _ in range(4):
            assert read(client, 0, SIZE) == content(SIZE, 2)
        assert other.stats()["evicted_by_itself"] > 1000
        assert image.stats["evicted"] == 0
        other.close()


def test_holds_after_a_change(path: Path) -> None:
    """Then there is another pool."""
    with shown(path, cache=MOST) as image:
        client = image.connect()
        read(client, 0, SIZE)
        gone = image.stats["evicted_by_itself"]
        image.change(b"x", 0)
        image.settle()
        assert read(client, 0, SIZE) == b"x" + CONTENT[1:]
        assert 0 < image.stats["cached_bytes"] <= MOST
        assert image.stats["evicted_by_itself"] > gone


def test_holds_where_it_is_written_to(path: Path) -> None:
    with shown(path, writable=True, cache=MOST) as disk:
        client = disk.connect()
        new = content(SIZE, 3)
        for at in range(0, SIZE, 64 * PAGE):
            client.pwrite(new[at : at + 64 * PAGE], at, 0)
            assert disk.stats["cached_bytes"] <= MOST
        assert read(client, 0, SIZE) == new
        assert disk.stats["evicted_by_itself"] > 0


def test_one_pool_for_one_limit(path: Path) -> None:
    """Two images of one file share their pages, and a pool has one limit."""
    with shown(path, cache=MOST) as image:
        others = [image.again(cache=cache) for cache in (MOST, 2 * MOST, None)]
        image.clock[0] += 10
        for other in others:
            other.look()
        pools = [other.image.pool for other in others]
        assert pools[0] == image.watched.image.pool
        assert len(set(pools)) == 3
        read(image.connect(), 0, SIZE)
        assert [other.stats()["cached_pages"] > 0 for other in others] == [True, False, False]
        for other in others:
            other.close()
