# SPDX-License-Identifier: BSD-3-Clause
"""A read of an image is what its file holds, from memory once it was read."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from preswapd.block._export import FLAG_FUA
from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.conftest import SIZE
from tests.precache.running import MIB, Shown, content, read, shown
from tests.tmem.arena_file import flip_bit, slots_of

PAGES = -(-SIZE // PAGE)
CONTENT = content(SIZE)


def test_second_read_comes_from_memory(image: Shown) -> None:
    client = image.connect()
    assert read(client, 0, SIZE) == CONTENT
    assert (image.stats["misses"], image.stats["hits"]) == (PAGES, 0)
    assert read(client, 0, SIZE) == CONTENT
    assert (image.stats["misses"], image.stats["hits"]) == (PAGES, PAGES)
    assert image.stats["disk_reads"] == image.stats["puts"] == PAGES
    assert image.stats["cached_pages"] == PAGES
    assert 0 < image.stats["cached_bytes"] < SIZE * 2 // 3


@pytest.mark.parametrize(
    ("offset", "count"),
    [
        (0, 512),
        (100, 10),
        (PAGE - 1, 2),
        (PAGE, PAGE),
        (3 * PAGE + 7, 70 * PAGE),
        (SIZE - 512, 512),
        (SIZE - PAGE, PAGE),
        (SIZE - 1, 1),
        (SIZE, 0),
        (0, SIZE),
    ],
)
def test_any_range(image: Shown, offset: int, count: int) -> None:
    """Twice: from the file, and from memory; and with every second page there."""
    client = image.connect()
    for _ in range(2):
        assert read(client, offset, count) == CONTENT[offset : offset + count]


def test_holes_in_what_is_cached(image: Shown) -> None:
    client = image.connect()
    for page in range(1, 200, 3):
        read(client, page * PAGE, PAGE)
    before = image.stats["disk_reads"]
    assert read(client, 0, 200 * PAGE) == CONTENT[: 200 * PAGE]
    assert image.stats["disk_reads"] - before == 200 - len(range(1, 200, 3))


def test_beyond_the_end(image: Shown) -> None:
    client = image.connect()
    for offset, count in [(SIZE - 511, 512), (SIZE + 1, 0), (2**63, 1)]:
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            read(client, offset, count)


def test_read_only(image: Shown) -> None:
    client = image.connect()
    assert not client.is_writable
    changes: list[Callable[[], object]] = [
        lambda: client.pwrite(bytes(512), 0, FLAG_FUA),
        lambda: client.trim(PAGE, 0),
        lambda: client.zero(PAGE, 0),
    ]
    for change in changes:
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            change()
    client.flush()


def test_all_clients_share_what_one_has_read(image: Shown) -> None:
    read(image.connect(), 0, MIB)
    before = image.stats["disk_reads"]
    for _ in range(7):
        assert read(image.connect(), 0, MIB) == CONTENT[:MIB]
    assert image.stats["disk_reads"] == before
    assert image.stats["connections"] == 0, "they were dropped"


def test_many_that_want_one_page_read_it_once(image: Shown) -> None:
    found: list[bytes] = []
    ready = threading.Barrier(8)

    def boot() -> None:
        client = image.connect()
        ready.wait()
        for first in range(0, 2 * MIB, 32 * PAGE):
            found.append(read(client, first, 32 * PAGE))

    threads = [threading.Thread(target=boot) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert image.stats["disk_reads"] <= 2 * MIB // PAGE + 32, "with what was read ahead"
    assert sorted(set(found)) == sorted(
        {CONTENT[first : first + 32 * PAGE] for first in range(0, 2 * MIB, 32 * PAGE)}
    )


def test_who_reads_on_is_read_ahead_of(image: Shown) -> None:
    client = image.connect()
    read(client, 0, PAGE)
    assert image.stats["disk_reads"] == 1
    read(client, PAGE, PAGE)
    assert image.stats["disk_reads"] == 34
    assert read(client, 2 * PAGE, 32 * PAGE) == CONTENT[2 * PAGE : 34 * PAGE]
    assert image.stats["disk_reads"] == 34
    read(image.connect(), 700 * PAGE, PAGE)
    assert image.stats["disk_reads"] == 35


def test_nothing_is_read_ahead_behind_the_end(image: Shown) -> None:
    client = image.connect()
    read(client, SIZE - 512 - PAGE, PAGE)
    assert read(client, SIZE - 512, 512) == CONTENT[-512:]
    assert image.stats["disk_reads"] == 2


def test_pool_without_room_serves_from_the_file(path: Path) -> None:
    with shown(path, limit=0) as image:
        client = image.connect()
        for _ in range(2):
            assert read(client, 0, SIZE) == CONTENT
        assert image.stats["hits"] == image.stats["puts"] == 0
        assert image.stats["misses"] == 2 * PAGES


def test_small_pool_turns_over(path: Path) -> None:
    with shown(path, limit=MIB) as image:
        client = image.connect()
        for _ in range(3):
            assert read(client, 0, SIZE) == CONTENT
        assert image.stats["evicted"] > PAGES
        read(client, 0, PAGE)
        assert image.stats["hits"] + image.stats["misses"] == image.stats["reads"]


def test_two_exports_of_one_file_share_its_pages(path: Path) -> None:
    with shown(path) as one:
        two = one.again()
        one.clock[0] += 10
        two.look()
        read(one.connect(), 0, MIB)
        assert read(two.connect(), 0, MIB) == CONTENT[:MIB]
        assert two.stats()["misses"] == 0
        two.close()
        assert read(one.connect(), 0, MIB) == CONTENT[:MIB]


def test_damaged_page_is_read_from_the_file(image: Shown) -> None:
    client = image.connect()
    read(client, 0, PAGE)
    (slot,) = slots_of(Path(image.host.path))
    flip_bit(Path(image.host.path), slot.payload_at, 0)
    assert read(client, 0, PAGE) == CONTENT[:PAGE]
    assert image.stats["misses"] == 2
    assert read(client, 0, PAGE) == CONTENT[:PAGE]
    assert image.stats["hits"] == 1


def test_extents_are_the_files_own(tmp_path: Path) -> None:
    path = tmp_path / "sparse.raw"
    with open(path, "wb") as file:
        file.truncate(8 * MIB + 512)
        file.seek(MIB)
        file.write(os.urandom(MIB))
        file.seek(6 * MIB + 100)
        file.write(b"x")
    with shown(path) as image:
        client = image.connect()
        found = client.extents(8 * MIB + 512, 0)
        assert sum(length for _, length, _ in found) == 8 * MIB + 512
        assert [at for at, _, _ in found] == [
            sum(length for _, length, _ in found[:n]) for n in range(len(found))
        ]
        assert [hole for _, _, hole in found] == [True, False, True, False, True]
        assert found[1][:2] == (MIB, MIB)
        assert client.extents(PAGE, 100)[0] == (0, MIB, True)


def test_file_that_cannot_be_read(image: Shown, path: Path) -> None:
    """An error of the file is the client's, and one line of the log."""
    client = image.connect()
    os.truncate(path, MIB)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read(client, 2 * MIB, PAGE)
    assert image.stats["disk_errors"] == 1
