# SPDX-License-Identifier: BSD-3-Clause
"""Who wants memory asks first: the host, its memory cgroups, the arena's file system."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.tmem._tmem import Host
from tests.tmem.pages import make_page, read_page
from tests.tmem.test_memory import MIB, fill, mounted, used

# In an index, pages so far apart share nothing that is allocated for them.
FAR = 1 << 16


class Group:
    """Files like those of a memory cgroup."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.say(max=100 * MIB, high="max", current=10 * MIB, stat="anon 1\ninactive_file 4096")

    def say(self, **values: object) -> None:
        for name, value in values.items():
            (self.folder / name).write_text(f"{value}\n")

    @property
    def files(self) -> tuple[str, str, str, str]:
        limit, high, usage, statistics = (
            str(self.folder / name) for name in ("max", "high", "current", "stat")
        )
        return limit, high, usage, statistics


@pytest.fixture
def group(shm: Path) -> Group:
    return Group(shm / "group")


def opened(shm: Path, group: Group, *, create: bool = True) -> Host:
    return Host(shm / "arena", 64 * MIB, create=create, cgroup_files=[group.files])


def takes_a_page(host: Host) -> bool:
    return host.put_page(host.new_pool(), 0, 0, make_page("text", 0))


# --- what the pool leaves free ---


def test_reserve_of_the_host(shm: Path) -> None:
    host = Host(shm / "arena", MIB, create=True, host_reserve=1 << 60)
    assert not takes_a_page(host)
    assert host.stats()["reject_alloc_fail"] == 1


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ({}, True),
        ({"current": 100 * MIB}, False),
        ({"current": 100 * MIB, "max": "max"}, True),
        ({"current": 100 * MIB, "stat": f"anon 1\ninactive_file {90 * MIB}"}, True),
        (
            {
                "current": 100 * MIB,
                "stat": f"inactive_file 4096\ninactive_file 0\ntotal_inactive_file {90 * MIB}",
            },
            True,
        ),
        ({"current": 70 * MIB}, False),
        ({"high": 100 * MIB, "max": "max"}, True),
        ({"high": 40 * MIB}, False),
        ({"high": 40 * MIB, "max": "max"}, False),
    ],
)
def test_limits_of_a_cgroup(shm: Path, group: Group, said: dict[str, object], stored: bool) -> None:
    """Puts stop 32 MiB below the hard limit, and below the high one."""
    group.say(**said)
    assert takes_a_page(opened(shm, group)) == stored


@pytest.mark.parametrize(
    "names",
    [("active_file", "file_dirty", "file_writeback"), ("total_active_file", "total_dirty", "")],
    ids=["version 2", "version 1"],
)
def test_no_page_leaves_for_files_that_the_kernel_would_drop(
    shm: Path, group: Group, names: tuple[str, str, str]
) -> None:
    """Those that others use all the time are kept for them, but nobody is killed for them."""
    active, dirty, writeback = names
    group.say(current=100 * MIB, stat=f"anon 1\ninactive_file 0\n{active} {10 * MIB}")
    host = opened(shm, group)
    assert host.owed() == 0
    assert not takes_a_page(host)
    more = f"{dirty} {3 * MIB}" if not writeback else f"{dirty} {MIB}\n{writeback} {2 * MIB}"
    group.say(stat=f"anon 1\ninactive_file 0\n{active} {10 * MIB}\n{more}")
    assert host.owed() == MIB  # 93 are used, 8 are kept to the last
    group.say(stat=f"anon 1\ninactive_file 0\n{active} {MIB}\n{dirty} {3 * MIB}")
    assert host.owed() == 8 * MIB


def test_cgroup_without_a_high_limit(shm: Path, group: Group) -> None:
    limit, _, usage, statistics = group.files
    host = Host(shm / "arena", MIB, create=True, cgroup_files=[(limit, None, usage, statistics)])
    assert takes_a_page(host)


def test_limit_of_a_cgroup_holds_for_fast_puts(shm: Path, group: Group) -> None:
    """More come in than there is room for, before the time to ask again has come."""
    others = 67 * MIB
    # With what an empty arena takes.
    group.say(current=others + 8192)
    host = opened(shm, group)
    pool = host.new_pool()
    for index in range(1000):
        group.say(current=others + used(host))
        host.put_page(pool, 0, index, make_page("noise", index))
    assert 0 < used(host) <= MIB


def test_what_is_set_aside_is_left_alone(shm: Path, group: Group) -> None:
    host = opened(shm, group)
    host.set_aside(60 * MIB)
    assert not takes_a_page(host)
    host.set_aside(10 * MIB)
    assert host.put_page(0, 0, 0, make_page("text", 0))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "size=8M") as path:
        yield path


def test_reserve_of_the_file_system(small: Path) -> None:
    """Another program can still touch all of its file there, and does not die of it."""
    host = Host(small / "arena", 64 * MIB, create=True, shm_reserve=6 * MIB)
    pool = host.new_pool()
    stored = fill(host, pool, "noise")
    assert 300 < stored < 512
    assert host.stats()["reject_alloc_fail"] == 1
    (small / "others").write_bytes(b"x" * 6 * MIB)
    assert all(read_page(host, pool, 0, i) == make_page("noise", i) for i in range(stored))
    host.close()


def test_file_system_with_room_again(small: Path) -> None:
    (small / "others").write_bytes(b"x" * 4 * MIB)
    host = Host(small / "arena", 64 * MIB, create=True, shm_reserve=6 * MIB)
    assert not takes_a_page(host)
    (small / "others").unlink()
    host.maintain()
    assert host.put_page(0, 0, 0, make_page("text", 0))
    host.close()


def test_file_system_without_a_size_has_no_reserve(tmp_path: Path) -> None:
    with mounted(tmp_path / "unlimited", "size=0") as path:
        host = Host(path / "arena", 4 * MIB, create=True, shm_reserve=1 << 50)
        assert takes_a_page(host)
        host.close()


# --- private memory ---


def test_index_asks_too(shm: Path, group: Group) -> None:
    """It grows with the number of places that pages lie at, also where the arena does not."""
    host = opened(shm, group)
    pool = host.new_pool()
    assert host.put_page(pool, 0, 0, make_page("zeros", 0))
    group.say(current=100 * MIB)
    host.maintain()
    assert host.put_page(pool, 0, 1, make_page("zeros", 0))
    assert not host.put_page(pool, 0, FAR, make_page("zeros", 0))
    group.say(current=10 * MIB)
    host.maintain()
    assert host.put_page(pool, 0, FAR, make_page("zeros", 0))


def test_start_without_room_for_the_index_is_refused(shm: Path, group: Group) -> None:
    """With a sentence instead of a kill; there is nothing lost."""
    with closing(opened(shm, group)) as host:
        host.new_pool()
        for index in range(8):
            assert host.put_page(0, 0, index * FAR, make_page("text", index))
    group.say(current=100 * MIB)
    with (
        closing(opened(shm, group, create=False)) as host,
        pytest.raises(RefusedError, match=r"group/max has none left"),
    ):
        host.recover()
    group.say(current=10 * MIB)
    with closing(opened(shm, group, create=False)) as host:
        assert host.recover()["stored_pages"] == 8
        assert read_page(host, 0, 0, 7 * FAR) == make_page("text", 7)


def test_start_near_the_limit_finds_its_pages(shm: Path, group: Group) -> None:
    """A pool that has stopped at its reserve starts again, whatever the reserve is for."""
    with closing(opened(shm, group)) as host:
        fill(host, host.new_pool(), "noise", 100)
    group.say(current=80 * MIB)
    with closing(opened(shm, group, create=False)) as host:
        assert host.recover()["stored_pages"] == 100


def test_room_and_who_limits_it(shm: Path, group: Group) -> None:
    host = opened(shm, group)
    room, limiter = host.room()
    assert room == 82 * MIB + 4096
    assert limiter == str(shm / "group" / "max")
    host.set_aside(2 * MIB)
    assert host.room() == (room - 2 * MIB, limiter)
    group.say(max="max")
    room, limiter = host.room()
    assert room > MIB
    assert limiter is None
