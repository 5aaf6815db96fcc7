# SPDX-License-Identifier: BSD-3-Clause
"""What is written to an image is in its file, and what is cached of it is the same."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from preswapd.block._export import FLAG_FAST_ZERO, FLAG_FUA, FLAG_MAY_TRIM
from preswapd.precache.watched import Watched
from preswapd.units import PAGE_SIZE as PAGE
from tests.precache.conftest import SIZE
from tests.precache.running import MIB, Shown, content, read, shown
from tests.running import typed

CONTENT = content(SIZE)
NEW = content(SIZE, seed=2)
RANGES = [
    (0, 512),
    (100, 10),
    (PAGE - 1, 2),
    (PAGE, PAGE),
    (3 * PAGE + 7, 70 * PAGE),
    (7 * PAGE, 300 * PAGE),
    (PAGE + 512, 2 * MIB),
    (SIZE - 512, 512),
    (SIZE - 512, 100),
    (SIZE - 100, 100),
    (SIZE - PAGE, PAGE),
    (SIZE - 1, 1),
    (SIZE, 0),
    (5, 0),
    (0, SIZE),
]


def changed(offset: int, piece: bytes) -> bytes:
    return CONTENT[:offset] + piece + CONTENT[offset + len(piece) :]


def blocks(path: Path) -> int:
    os.sync()
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("flags", [0, FLAG_FUA])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("offset", "count"), RANGES)
def test_any_range(disk: Shown, offset: int, count: int, cached: bool, flags: int) -> None:
    client = disk.connect()
    if cached:
        read(client, 0, SIZE)
    client.pwrite(NEW[offset : offset + count], offset, flags)
    right = changed(offset, NEW[offset : offset + count])
    assert disk.path.read_bytes() == right
    for _ in range(2):
        assert read(client, 0, SIZE) == right


@pytest.mark.parametrize(("offset", "count"), RANGES)
@pytest.mark.parametrize("flags", [0, FLAG_MAY_TRIM, FLAG_MAY_TRIM | FLAG_FUA])
def test_zeroes_of_any_range(disk: Shown, offset: int, count: int, flags: int) -> None:
    client = disk.connect()
    read(client, 0, SIZE)
    client.zero(count, offset, flags)
    right = changed(offset, bytes(count))
    assert disk.path.read_bytes() == right
    for _ in range(2):
        assert read(client, 0, SIZE) == right


@pytest.mark.parametrize(("offset", "count"), RANGES)
def test_trim_takes_the_whole_pages_inside(disk: Shown, offset: int, count: int) -> None:
    client = disk.connect()
    read(client, 0, SIZE)
    client.trim(count, offset, FLAG_FUA)
    end = offset + count
    first = -(-offset // PAGE) * PAGE
    last = max(first, end if end == SIZE else end // PAGE * PAGE)
    right = changed(first, bytes(last - first)) if first < SIZE else CONTENT
    assert disk.path.read_bytes() == right
    assert read(client, 0, SIZE) == right


def test_what_was_written_is_read_from_memory(disk: Shown) -> None:
    client = disk.connect()
    client.pwrite(NEW[:MIB], 0)
    assert read(client, 0, MIB) == NEW[:MIB]
    stats = disk.stats
    assert (stats["hits"], stats["misses"], stats["disk_reads"]) == (MIB // PAGE, 0, 0)
    assert (stats["writes"], stats["disk_writes"], stats["write_requests"]) == (256, 256, 1)
    assert stats["writable"]
    assert stats["latency"]["write"]["count"] == 1


def test_part_of_a_page_that_is_cached_is_not_read_from_the_file(disk: Shown) -> None:
    client = disk.connect()
    read(client, 0, PAGE)
    before = disk.stats["disk_reads"]
    client.pwrite(b"part", 10)
    assert disk.stats["disk_reads"] == before
    assert read(client, 0, PAGE) == changed(10, b"part")[:PAGE]


@pytest.mark.parametrize("why", ["limit", "frozen", "dropped"])
def test_rejected_put_leaves_nothing_old(disk: Shown, why: str) -> None:
    """What the pool has of the page goes, if it does not take the new one; a frozen one does."""
    client = disk.connect()
    read(client, 0, MIB)
    if why == "limit":
        disk.host.limit = 0
    elif why == "frozen":
        disk.watched.look(frozen=True)
    else:
        disk.host.evict_all()
    client.pwrite(NEW[:MIB], 0)
    assert read(client, 0, MIB) == NEW[:MIB]
    if why == "limit":
        assert disk.stats["cached_pages"] == 0


def test_write_beyond_the_end_is_refused(disk: Shown) -> None:
    client = disk.connect()
    beyond: list[Callable[[], object]] = [
        lambda: client.pwrite(bytes(512), SIZE - 511),
        lambda: client.trim(PAGE, SIZE - PAGE + 1),
        lambda: client.zero(1, SIZE),
        lambda: client.pwrite(b"x", 2**63),
    ]
    for change in beyond:
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            change()
    assert disk.path.read_bytes() == CONTENT


def test_zeroes_give_blocks_back_only_where_they_may(disk: Shown) -> None:
    client = disk.connect()
    before = blocks(disk.path)
    client.zero(MIB, 0)
    assert blocks(disk.path) >= before
    client.zero(MIB, 0, FLAG_MAY_TRIM)
    assert blocks(disk.path) <= before - MIB
    client.trim(MIB, MIB)
    assert blocks(disk.path) <= before - 2 * MIB
    assert client.extents(2 * MIB, 0) == [(0, 2 * MIB, True)]


@pytest.mark.parametrize("flags", [FLAG_FAST_ZERO, FLAG_FAST_ZERO | FLAG_MAY_TRIM])
def test_fast_zeroes(disk: Shown, flags: int) -> None:
    client = disk.connect()
    read(client, 0, MIB)
    client.zero(2 * PAGE, PAGE, flags)
    right = changed(PAGE, bytes(2 * PAGE))
    for count, offset in [(PAGE, 1), (PAGE + 1, 4 * PAGE), (10, 0)]:
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            client.zero(count, offset, flags)
    assert read(client, 0, SIZE) == disk.path.read_bytes() == right
    assert disk.stats["disk_errors"] == 0


def test_where_nothing_can_be_punched_zeros_are_written(shm: Path) -> None:
    """tmpfs knows no FALLOC_FL_ZERO_RANGE."""
    path = shm / "disk.raw"
    path.write_bytes(CONTENT)
    with shown(path, writable=True) as disk:
        client = disk.connect()
        read(client, 0, SIZE)
        before = path.stat().st_blocks
        client.zero(2 * MIB, PAGE)
        assert path.read_bytes() == changed(PAGE, bytes(2 * MIB))
        assert path.stat().st_blocks == before
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            client.zero(PAGE, 0, FLAG_FAST_ZERO)
        client.zero(PAGE, 0, FLAG_FAST_ZERO | FLAG_MAY_TRIM)
        client.trim(PAGE, 5 * PAGE)
        assert read(client, 0, SIZE) == path.read_bytes()


def test_times_that_change_drop_nothing(disk: Shown) -> None:
    """They do with every write of its own."""
    client = disk.connect()
    read(client, 0, MIB)
    client.pwrite(b"new", 0)
    os.utime(disk.path)
    disk.watched.look()
    before = disk.stats["disk_reads"]
    read(client, 0, MIB)
    assert disk.stats["disk_reads"] == before
    assert disk.log == []


def test_cut_off_file_is_not_made_longer(disk: Shown) -> None:
    """With zeros where other pages were."""
    client = disk.connect()
    read(client, 0, SIZE)
    os.truncate(disk.path, MIB)
    changes: list[Callable[[], object]] = [
        lambda: client.pwrite(NEW[:PAGE], 2 * MIB),
        lambda: client.pwrite(NEW[:PAGE], 0),
        lambda: client.zero(PAGE, 2 * MIB, FLAG_MAY_TRIM),
    ]
    for change in changes:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            change()
    disk.settle()
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read(client, 2 * MIB, PAGE)
    assert disk.path.stat().st_size == MIB
    assert read(client, 0, MIB) == CONTENT[:MIB]


def test_grown_file_keeps_what_is_behind_the_end(disk: Shown) -> None:
    client = disk.connect()
    with disk.path.open("ab") as file:
        file.write(b"behind" * 1000)
    disk.settle()
    client.pwrite(NEW, 0)
    client.zero(1000, SIZE - 1000, FLAG_MAY_TRIM)
    client.trim(SIZE, 0)
    assert disk.path.read_bytes()[SIZE:] == b"behind" * 1000
    assert read(client, 0, SIZE) == bytes(SIZE)


def test_replaced_file_is_written_to_and_can_be_kept(disk: Shown) -> None:
    client = disk.connect()
    disk.path.unlink()
    disk.path.write_bytes(b"another")
    disk.watched.look()
    client.pwrite(b"still", 0)
    assert disk.path.read_bytes() == b"another"
    (line,) = disk.log
    command = line.partition("and then ")[2]
    assert typed(command).returncode == 0
    assert disk.path.with_name("base.raw.kept").read_bytes() == changed(0, b"still")


def test_no_other_image_has_its_pool(path: Path) -> None:
    """Not even the same file's, before and after: its times do not tell what it holds."""
    uuids = []
    with shown(path, writable=True) as disk:
        client = disk.connect()
        read(client, 0, MIB)
        uuids += [disk.watched.uuid(disk.watched.image.look()) for _ in range(3)]
        assert disk.watched.image.look().uuid() not in uuids
    assert len(set(uuids)) == 3


def test_flush_of_what_is_read_only_does_nothing(image: Shown) -> None:
    image.connect().flush()


def test_small_pool_turns_over(path: Path) -> None:
    with shown(path, limit=MIB, writable=True) as disk:
        client = disk.connect()
        for seed in range(3):
            new = content(SIZE, seed)
            for offset in range(0, SIZE, 100_000):
                client.pwrite(new[offset : offset + 100_000], offset)
            assert read(client, 0, SIZE) == new
        assert disk.stats["evicted"] > 0


def test_swap_page_takes_what_was_written(path: Path) -> None:
    """An image's pages yield, whoever put them."""
    with shown(path, limit=2 * MIB, writable=True) as disk:
        disk.connect().pwrite(NEW, 0)
        assert disk.stats["cached_pages"]
        pool = disk.host.new_pool(flags=1)
        for index in range(300):
            assert disk.host.put_page(pool, 0, index, os.urandom(PAGE))
        assert disk.stats["evicted"] > 0
        assert read(disk.connect(), 0, SIZE) == NEW


def test_looks_do_not_take_it_for_changed(disk: Shown) -> None:
    watched: Watched = disk.watched
    for seed in range(5):
        disk.connect().pwrite(content(PAGE, seed), 0)
        disk.clock[0] += 1
        watched.look()
        assert watched.stats()["cached"]
