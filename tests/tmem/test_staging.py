# SPDX-License-Identifier: BSD-3-Clause
"""Pages taken at the speed of a copy, and compressed afterwards."""

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from preswapd.errors import PageDamagedError
from preswapd.tmem._tmem import Host
from tests.tmem.arena_file import slots_of
from tests.tmem.pages import make_page, read_page
from tests.tmem.test_headroom import Group

MIB = 1 << 20
LIMIT = 16 * MIB
RAW_IN_A_SLAB = 15


@pytest.fixture
def staging(shm: Path) -> Iterator[Host]:
    """A host that stages, with one pool; nobody settles it."""
    opened = Host(shm / "arena", LIMIT, create=True)
    opened.set_staging(True)
    opened.new_pool()
    yield opened
    opened.close()


def put(host: Host, first: int, count: int, kind: str = "text", compress: str = "lz4") -> int:
    """How many of the pages were taken."""
    pages = range(first, first + count)
    return sum(host.put_page(0, 0, i, make_page(kind, i), compress=compress) for i in pages)


def check(host: Host, first: int, count: int, kind: str = "text") -> None:
    for i in range(first, first + count):
        assert read_page(host, 0, 0, i) == make_page(kind, i)


def staged(host: Host) -> int:
    return host.stats()["staged_pages"]


@pytest.mark.parametrize("compress", ["lz4", "zstd"])
def test_staged_then_compressed(staging: Host, compress: str) -> None:
    assert put(staging, 0, 100, compress=compress) == 100
    before = staging.stats()
    assert before["staged_pages"] == before["huge_pages"] == 100
    assert before["compr_data_size"] == 100 * 4096
    check(staging, 0, 100)
    staging.settle()
    after = staging.stats()
    assert after["staged_pages"] == after["huge_pages"] == 0
    assert after["stored_pages"] == 100
    assert after["compr_data_size"] < 100 * 600
    staging.maintain(all=True)
    assert staging.stats()["mem_used_total"] < before["mem_used_total"] / 3
    check(staging, 0, 100)


def test_who_begins_a_slab_for_single_pages_maps_all_of_it(staging: Host) -> None:
    """The others come under the server's interpreter lock: all would wait for a first touch."""
    slabs = 16
    held_up = []
    for i, page in enumerate([make_page("text", i) for i in range(slabs * RAW_IN_A_SLAB)]):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        assert staging.put_page(0, 0, i, page, compress="lz4")
        if resource.getrusage(resource.RUSAGE_THREAD).ru_minflt > before:
            held_up.append(i)
    assert staged(staging) == slabs * RAW_IN_A_SLAB
    # The interpreter may meet one of its own now and then.
    assert len(held_up) < 2 * slabs


def test_codecs_are_kept_apart(staging: Host, shm: Path) -> None:
    put(staging, 0, 20, compress="lz4")
    put(staging, 20, 20, compress="zstd")
    staging.settle()
    staging.close()
    codecs = {slot.index: slot.codec for slot in slots_of(shm / "arena")}
    assert {codecs[i] for i in range(20)} == {3}
    assert {codecs[i] for i in range(20, 40)} == {4}


def test_off_unless_asked_for(host: Host) -> None:
    host.new_pool()
    put(host, 0, 20)
    assert staged(host) == 0
    assert host.stats()["huge_pages"] == 0


@pytest.mark.parametrize(
    ("kind", "compress"), [("same", "lz4"), ("zeros", "lz4"), ("text", "none")]
)
def test_what_is_as_well_stored_at_once(staging: Host, kind: str, compress: str) -> None:
    put(staging, 0, 20, kind, compress)
    assert staged(staging) == 0


def test_what_does_not_compress_stays_where_it_is(staging: Host, shm: Path) -> None:
    put(staging, 0, 2 * RAW_IN_A_SLAB, "noise")
    before = sorted((slot.index, slot.header_at) for slot in slots_of(shm / "arena"))
    staging.settle()
    assert staged(staging) == 0
    assert staging.stats()["huge_pages"] == 2 * RAW_IN_A_SLAB
    assert sorted((slot.index, slot.header_at) for slot in slots_of(shm / "arena")) == before
    check(staging, 0, 2 * RAW_IN_A_SLAB, "noise")


def used_by_a_mixture(path: Path, on: bool) -> int:
    """One page in eight does not compress."""
    host = Host(path, LIMIT, create=True)
    try:
        host.set_staging(on)
        host.new_pool()
        kinds = ["noise", *["half"] * 7] * 200
        for i, kind in enumerate(kinds):
            host.put_page(0, 0, i, make_page(kind, i))
        host.settle()
        host.maintain(all=True)
        assert all(read_page(host, 0, 0, i) == make_page(kind, i) for i, kind in enumerate(kinds))
        return host.stats()["mem_used_total"]
    finally:
        host.close()


def test_pages_that_do_not_compress_leave_no_sparse_slabs(shm: Path) -> None:
    without = used_by_a_mixture(shm / "without", on=False)
    assert used_by_a_mixture(shm / "with", on=True) <= 1.005 * without


def taken_until_full(path: Path, on: bool) -> int:
    host = Host(path, 4 * MIB, create=True)
    try:
        host.set_staging(on)
        host.new_pool()
        first = 0
        while put(host, first, 1, "half"):
            first += 1
        check(host, 0, first, "half")
        assert host.stats()["mem_used_total"] <= 4 * MIB
        return first
    finally:
        host.close()


def test_a_full_pool_has_as_many_pages_as_without(shm: Path) -> None:
    """Within the slabs that are begun and not filled, one for each class."""
    without = taken_until_full(shm / "without", on=False)
    assert taken_until_full(shm / "with", on=True) >= 0.97 * without


def test_a_put_that_needs_room_compresses_what_is_staged(staging: Host) -> None:
    put(staging, 0, 1000)
    assert staged(staging) == 1000
    staging.limit = staging.stats()["mem_used_total"] + 64 * 1024
    assert put(staging, 1000, 3000) == 3000
    check(staging, 0, 4000)


def test_staging_leaves_room_for_the_copies(staging: Host) -> None:
    put(staging, 0, 20_000)
    stats = staging.stats()
    raw_slabs = -(-stats["staged_pages"] // RAW_IN_A_SLAB)
    assert stats["mem_used_total"] + raw_slabs * 65536 <= LIMIT
    check(staging, 0, 20_000)


def test_replacements_at_the_brim_stage_nothing(staging: Host) -> None:
    """The last 1 % is for them, and staging would spend it."""
    staging.limit = 256 * MIB
    pages = 0
    while staging.put_page(0, 0, pages, make_page("noise", 0), compress="none"):
        pages += 1
    for i in range(64):
        assert staging.put_page(0, 0, i, make_page("text", i))
    assert staged(staging) == 0


def test_a_lowered_limit_is_met_by_compressing(staging: Host) -> None:
    put(staging, 0, 1000)
    staging.limit = 2 * MIB
    staging.maintain()
    assert staging.stats()["mem_used_total"] <= 2 * MIB
    check(staging, 0, 1000)


def test_page_without_room_is_tried_less_and_less_often(shm: Path) -> None:
    """A host may be short of memory for hours, and each try takes a processor out of its sleep."""
    group = Group(shm / "group")
    with closing(Host(shm / "arena", LIMIT, create=True, cgroup_files=[group.files])) as host:
        host.set_staging(True)
        host.new_pool()
        put(host, 0, 1000)
        group.say(current=100 * MIB)
        assert host.room()[0] == 0
        tries, begun = 0, time.monotonic()
        while time.monotonic() < begun + 1:
            host.settle(1)
            tries += 1
        assert staged(host) > 0
        assert tries < 20  # 100 with the shortest pause
        group.say(current=10 * MIB)
        while staged(host):
            host.settle(1)
        check(host, 0, 1000)


def test_overwritten_while_staged(staging: Host) -> None:
    put(staging, 0, 50)
    for i in range(50):
        staging.put_page(0, 0, i, make_page("half", i))
    assert staged(staging) == 50
    staging.settle()
    check(staging, 0, 50, "half")
    assert staging.flush_object(0, 0) == 50
    staging.maintain(all=True)
    assert staging.stats()["mem_used_total"] == 8192


def test_damage_is_not_signed_anew(staging: Host, shm: Path) -> None:
    put(staging, 0, 3)
    (slot,) = (slot for slot in slots_of(shm / "arena") if slot.index == 1)
    with (shm / "arena").open("r+b") as file:
        file.seek(slot.payload_at + 100)
        file.write(b"\xff")
    staging.settle()
    assert staged(staging) == 0
    with pytest.raises(PageDamagedError):
        read_page(staging, 0, 0, 1)
    assert read_page(staging, 0, 0, 0) == make_page("text", 0)


def test_settle_waits_for_work(staging: Host) -> None:
    """One that waits is woken by the first slab that is full."""
    waiting = threading.Thread(target=staging.settle, args=(60_000,))
    waiting.start()
    put(staging, 0, RAW_IN_A_SLAB)
    waiting.join(30)
    assert not waiting.is_alive()
    staging.settle()  # the last slot of a slab is taken before its page is there
    assert staged(staging) == 0
