# SPDX-License-Identifier: BSD-3-Clause
"""What the host loses to the arena: never more than the limit, and all of it comes back."""

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from preswapd.tmem._tmem import Host
from tests.tmem.pages import make_page, read_page

MIB = 1 << 20


def blocks(host: Host) -> int:
    return os.stat(host.path).st_blocks * 512


def used(host: Host) -> int:
    return host.stats()["mem_used_total"]


def fill(host: Host, pool: int, kind: str, most: int = 1 << 20) -> int:
    """Puts pages until one is rejected; how many were stored."""
    index = 0
    while index < most and host.put_page(pool, 0, index, make_page(kind, index)):
        index += 1
    return index


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "size=2M") as path:
        yield path


@pytest.mark.parametrize("kind", ["zeros", "text", "half", "noise"])
def test_limit_is_never_exceeded(host: Host, kind: str) -> None:
    host.limit = MIB
    stored = fill(host, host.new_pool(), kind, 20_000)
    assert used(host) == blocks(host) <= MIB
    assert stored >= 20_000 or used(host) >= MIB - MIB // 100 - 65536


def test_replacements_use_the_last_percent(host: Host) -> None:
    host.limit = 16 * MIB
    pool = host.new_pool()
    stored = fill(host, pool, "half")
    before = used(host)
    assert before <= 16 * MIB * 99 // 100
    assert host.put_page(pool, 0, stored - 1, make_page("noise", 1))
    assert before <= used(host) <= 16 * MIB


def test_limit_below_use_takes_nothing(host: Host) -> None:
    pool = host.new_pool()
    fill(host, pool, "noise", 200)
    host.flush_page(pool, 0, 7)
    host.limit = used(host) - 1
    assert not host.put_page(pool, 0, 300, make_page("zeros", 0))
    assert not host.put_page(pool, 0, 1, make_page("noise", 1), keep_old=True)
    assert read_page(host, pool, 0, 1) == make_page("noise", 1)
    assert host.stats()["pool_limit_hit"] >= 2


def test_empty_slabs_serve_another_class_at_the_limit(host: Host) -> None:
    """Also one that has a slab of its own, which may not grow."""
    pool = host.new_pool()
    host.put_page(pool, 9, 0, make_page("half", 20))
    stored = fill(host, pool, "noise", 300)
    host.limit = used(host)
    for index in range(stored):
        host.flush_page(pool, 0, index)
    for index in range(100):
        assert host.put_page(pool, 9, index, make_page("half", 20))
    assert used(host) <= host.limit


def test_longer_slot_will_do_at_the_limit(host: Host) -> None:
    pool = host.new_pool()
    fill(host, pool, "noise", 15)
    host.flush_page(pool, 0, 3)
    host.limit = used(host)
    assert host.put_page(pool, 0, 3, make_page("zeros", 0))


def test_everything_flushed_gives_everything_back(host: Host) -> None:
    pool = host.new_pool()
    before = used(host)
    for kind in ("zeros", "text", "half", "noise"):
        fill(host, pool, kind, 500)
    host.flush_object(pool, 0)
    host.maintain(all=True)
    assert used(host) == blocks(host) == before
    assert host.stats()["live_slot_bytes"] == host.stats()["compr_data_size"] == 0


def test_fresh_empty_slabs_are_kept_for_a_while(host: Host) -> None:
    pool = host.new_pool()
    fill(host, pool, "noise", 50)
    before = used(host)
    host.flush_object(pool, 0)
    host.maintain()
    assert used(host) == before


def test_memory_follows_the_data(shm: Path) -> None:
    """A random half of 30 MB is flushed: what is left is within 1.25 times the live payload."""
    host = Host(shm / "arena", 64 * MIB, create=True)
    pool = host.new_pool()
    kinds = ("half", "half", "noise", "text", "boundary")
    for index in range(12_000):
        host.put_page(pool, index % 16, index >> 4, make_page(kinds[index % 5], index))
    for index in random.Random(1).sample(range(12_000), 6_000):
        host.flush_page(pool, index % 16, index >> 4)
    host.maintain(all=True)
    stats = host.stats()
    assert used(host) == blocks(host) <= 1.25 * stats["compr_data_size"]
    assert stats["moved_pages"] > 0
    host.close()


def test_trimmed_tail_is_not_taken_for_held_after_a_restart(shm: Path) -> None:
    """A slab carved again gives back what it does not use, to the page; to touch that without a new
    reservation would be SIGBUS on a full tmpfs."""
    path = shm / "arena"
    host = Host(path, 16 << 20, create=True)
    host.new_pool()
    for i in range(60):
        assert host.put_page(0, 0, i, make_page("noise", i))
    host.flush_object(0, 0)
    assert host.put_page(0, 0, 0, make_page("text", 0))
    host.maintain(all=True)
    held = host.stats()["mem_used_total"]
    assert held == blocks(host) < 32 << 10
    host.close()
    again = Host(path, 16 << 20, create=False)
    again.recover()
    assert used(again) == blocks(again) == held
    again.close()


def test_slot_in_held_memory_needs_no_more_after_a_restart(shm: Path) -> None:
    """Its slab's memory ends with a page then, and not with a step of 16 KiB."""
    path = shm / "arena"
    with closing(Host(path, 16 * MIB, create=True)) as host:
        assert fill(host, host.new_pool(), "noise", 2) == 2
    with closing(Host(path, 16 * MIB, create=False)) as again:
        again.recover()
        held = used(again)
        again.flush_page(0, 0, 0)
        again.limit = held
        assert again.put_page(0, 0, 1, make_page("noise", 9))
        assert used(again) == blocks(again) == held


@pytest.mark.parametrize("kept", [1, 2, 7])
def test_mover_goes_on_after_a_restart(shm: Path, kept: int) -> None:
    """Slabs whose memory is reserved in part must not stop it."""
    host = Host(shm / "arena", 64 * MIB, create=True)
    pool = host.new_pool()
    fill(host, pool, "noise", 1500)
    for index in range(1500):
        if index % 15 != kept:
            host.flush_page(pool, 0, index)
    host.close()
    host = Host(shm / "arena", 64 * MIB, create=False)
    host.recover()
    host.maintain(all=True)
    assert used(host) == blocks(host)
    assert host.stats()["live_slot_bytes"] >= 0.7 * used(host) or used(host) < MIB + 65536
    assert all(read_page(host, pool, 0, i) == make_page("noise", i) for i in range(kept, 1500, 15))


def test_full_tmpfs_is_a_rejected_put(small_tmpfs: Path) -> None:
    host = Host(small_tmpfs / "arena", 64 * MIB, create=True)
    pool = host.new_pool()
    stored = fill(host, pool, "noise")
    assert 300 < stored < 500
    assert host.stats()["reject_alloc_fail"] == 1
    assert all(read_page(host, pool, 0, i) == make_page("noise", i) for i in range(stored))
    assert used(host) == blocks(host)
    host.close()


def test_full_tmpfs_takes_what_fits_held_memory(small_tmpfs: Path) -> None:
    host = Host(small_tmpfs / "arena", 64 * MIB, create=True)
    pool = host.new_pool()
    stored = fill(host, pool, "noise")
    for kind in ("text", "half", "zeros"):
        for index in range(stored):
            if not host.put_page(pool, 0, index, make_page(kind, index), keep_old=True):
                host.flush_page(pool, 0, index)
    host.maintain(all=True)
    assert used(host) == blocks(host)
    host.close()


def test_recovery_on_a_full_tmpfs(small_tmpfs: Path) -> None:
    host = Host(small_tmpfs / "arena", 64 * MIB, create=True)
    pool = host.new_pool()
    stored = fill(host, pool, "half")
    host.close()
    fill_up(small_tmpfs / "rest")
    host = Host(small_tmpfs / "arena", 64 * MIB, create=False)
    assert host.recover()["stored_pages"] == stored
    assert all(read_page(host, pool, 0, i) == make_page("half", i) for i in range(stored))
    assert used(host) == blocks(host)
    host.close()


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            return


def test_no_arena_on_a_full_tmpfs(small_tmpfs: Path) -> None:
    fill_up(small_tmpfs / "rest")
    with pytest.raises(OSError, match="No space"):
        Host(small_tmpfs / "arena", MIB, create=True)
    assert [path.name for path in small_tmpfs.iterdir()] == ["rest"]


def test_no_table_on_a_full_tmpfs(small_tmpfs: Path) -> None:
    host = Host(small_tmpfs / "arena", MIB, create=True)
    fill_up(small_tmpfs / "rest")
    with pytest.raises(OSError, match="No space"):
        host.table_reserve(8192)
    assert host.table_reserved() == 0
    host.close()


def test_tmpfs_without_a_size(tmp_path: Path) -> None:
    with mounted(tmp_path / "unlimited", "size=0") as path:
        host = Host(path / "arena", 4 * MIB, create=True)
        assert fill(host, host.new_pool(), "noise", 100) == 100
        host.close()


def test_table_counts_as_used(host: Host) -> None:
    before = used(host)
    host.table_reserve(5000)
    assert used(host) == blocks(host) == before + 8192
    assert host.table_reserved() == 8192
    assert host.stats()["mem_used_max"] == used(host)


def test_table_is_found_again(shm: Path) -> None:
    host = Host(shm / "arena", MIB, create=True)
    host.table_reserve(5000)
    host.close()
    again = Host(shm / "arena", MIB, create=False)
    again.recover()
    assert again.table_reserved() == 8192
    assert used(again) == blocks(again)


def test_table_of_a_killed_server_is_given_back(shm: Path) -> None:
    """Allocated, and killed before it was written: SEEK_DATA does not see it."""
    Host(shm / "arena", MIB, create=True).close()
    with (shm / "arena").open("r+b") as file:
        os.posix_fallocate(file.fileno(), 8192, 8192)
    again = Host(shm / "arena", MIB, create=False)
    again.recover()
    assert used(again) == blocks(again)


def test_metadata_is_small(host: Host) -> None:
    pool = host.new_pool()
    for index in range(5000):
        host.put_page(pool, index % 16, index >> 4, make_page("half", index))
    assert host.stats()["metadata_size"] <= 16 * 5000
