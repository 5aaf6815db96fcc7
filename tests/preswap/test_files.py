# SPDX-License-Identifier: BSD-3-Clause
"""The small pieces of the state: sidecars, maps, disk files, the table, and their limits."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.api.kinds import (
    LARGEST_DEVICE,
    SMALLEST_DEVICE,
    check_compress,
    check_device_size,
    check_pool_size,
)
from preswapd.errors import RefusedError, UsageError
from preswapd.preswap.device._table import Table, recover
from preswapd.preswap.files.disk_file import (
    check_disk_file,
    check_unclaimed,
    data_ranges,
    make_disk_file,
    open_disk_file,
    remove_disk_file,
)
from preswapd.preswap.files.durable import write_file
from preswapd.preswap.files.maps import (
    DISK,
    UNKNOWN,
    born,
    check_map,
    create_map,
    map_bytes,
    outside,
)
from preswapd.preswap.files.sidecar import Sidecar, paths_in, read_all
from preswapd.preswap.opening import default_reserve
from preswapd.tmem._tmem import Host
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.running import MIB, Running
from tests.running import as_nobody_special

SIDECAR = Sidecar("g1", MIB, 3, "zstd", "0123", "boot", True)


# --- durable ---


def test_write_file_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"one")
    write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_write_file_is_private(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_write_file_failed_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "file", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# --- sidecars ---


def test_sidecar_round_trip(tmp_path: Path) -> None:
    SIDECAR.write(tmp_path / "g1.json")
    assert Sidecar.read(tmp_path / "g1.json") == SIDECAR


def test_sidecars_by_name(tmp_path: Path) -> None:
    other = replace(SIDECAR, name="a.b")
    for sidecar in (SIDECAR, other):
        sidecar.write(tmp_path / f"{sidecar.name}.json")
    (tmp_path / "g1.json.new").write_bytes(b"half")
    (tmp_path / "b.json").write_bytes(b"?")
    found = read_all(tmp_path)
    assert found.read == {"g1": SIDECAR, "a.b": other}
    assert [str(error) for error in found.refused.values()] == [f"{tmp_path / 'b.json'} is damaged"]


def test_sidecars_in_a_directory_with_a_pattern_for_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "[ab] *?"
    folder.mkdir()
    SIDECAR.write(folder / "g1.json")
    assert read_all(folder).read == {"g1": SIDECAR}


def test_sidecars_in_a_directory_that_cannot_be_read_are_not_taken_for_absent(
    tmp_path: Path,
) -> None:
    SIDECAR.write(tmp_path / "g1.json")
    tmp_path.chmod(0o300)
    with (
        as_nobody_special(),
        pytest.raises(RefusedError, match="cannot be read: Permission denied"),
    ):
        paths_in(tmp_path)
    tmp_path.chmod(0o700)


# --- maps ---


@pytest.mark.parametrize(("size", "expected"), [(PAGE, 4096), (16 * MIB, 4096), (1 << 30, 1 << 18)])
def test_map_bytes_are_whole_pages(size: int, expected: int) -> None:
    assert map_bytes(size) == expected


def test_map_marks_what_is_on_disk(tmp_path: Path) -> None:
    create_map(tmp_path / "map", 16 * PAGE, born(16, [range(1), range(3, 5)]))
    states = (tmp_path / "map").read_bytes()[:16]
    assert [i for i, state in enumerate(states) if state == DISK] == [0, 3, 4]
    assert set(states) == {DISK, UNKNOWN}


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 299), st.integers(1, 40)), max_size=5),
    st.integers(0, 299),
    st.integers(0, 300),
)
def test_outside_is_what_the_zone_is_not(
    pages: int, places: list[tuple[int, int]], first: int, count: int
) -> None:
    inside = {page for start, length in places for page in range(start, start + length)}
    zone = [range(page, page + 1) for page in sorted(inside)]
    part = range(first, first + count)
    found = [page for piece in outside(zone, part) for page in piece]
    assert found == [page for page in part if page not in inside]


def test_map_is_allocated_in_full(tmp_path: Path) -> None:
    create_map(tmp_path / "map", 1 << 30, [])
    check_map(tmp_path / "map", 1 << 30)
    assert (tmp_path / "map").stat().st_blocks * 512 >= 1 << 18


def test_map_failed_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "map").mkdir()
    with pytest.raises(IsADirectoryError):
        create_map(tmp_path / "map", MIB, [])
    assert [p.name for p in tmp_path.iterdir()] == ["map"]


def test_map_of_another_size_refused(tmp_path: Path) -> None:
    create_map(tmp_path / "map", MIB, [])
    with pytest.raises(RefusedError, match="it has a wrong size"):
        check_map(tmp_path / "map", 1 << 30)


# --- disk files ---


def create_disk_file(path: Path, size: int) -> None:
    file, _ = make_disk_file(path, size, b"h" * PAGE, [range(1)], 7)
    assert file is not None
    file.publish()
    file.close()


def ranges_of(path: Path, size: int) -> list[tuple[int, int]]:
    with path.open("rb") as file:
        return list(data_ranges(file.fileno(), size))


def test_image_is_sparse(tmp_path: Path) -> None:
    create_disk_file(tmp_path / "img", MIB)
    check_disk_file(tmp_path / "img", MIB)
    assert ranges_of(tmp_path / "img", MIB) == [(0, PAGE)]
    assert (tmp_path / "img").stat().st_mode & 0o777 == 0o600


def test_data_ranges_of_islands(tmp_path: Path) -> None:
    path = tmp_path / "img"
    create_disk_file(path, MIB)
    with path.open("r+b") as file:
        for page in (5, 6, 200):
            os.pwrite(file.fileno(), b"x" * PAGE, page * PAGE)
    assert ranges_of(path, MIB) == [(0, PAGE), (5 * PAGE, 7 * PAGE), (200 * PAGE, 201 * PAGE)]


def test_data_ranges_end_with_the_device(tmp_path: Path) -> None:
    (tmp_path / "img").write_bytes(b"x" * MIB)
    assert ranges_of(tmp_path / "img", 3 * PAGE) == [(0, 3 * PAGE)]


def test_data_ranges_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "img").touch()
    os.truncate(tmp_path / "img", MIB)
    assert ranges_of(tmp_path / "img", MIB) == []


def test_image_through_a_link(tmp_path: Path) -> None:
    create_disk_file(tmp_path / "real", MIB)
    (tmp_path / "img").symlink_to(tmp_path / "real")
    check_disk_file(tmp_path / "img", MIB)
    os.close(open_disk_file(tmp_path / "img"))


def test_image_through_a_broken_link_refused(tmp_path: Path) -> None:
    (tmp_path / "img").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RefusedError, match="is missing"):
        check_unclaimed(tmp_path / "img", MIB)


def test_image_removed_with_its_half_made_one(tmp_path: Path) -> None:
    (tmp_path / "img").touch()
    (tmp_path / "img.new").touch()
    remove_disk_file(tmp_path / "img")
    assert list(tmp_path.iterdir()) == []


def test_image_failed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File too large"):
        create_disk_file(tmp_path / "img", (1 << 63) - PAGE)
    assert list(tmp_path.iterdir()) == []


# --- the table ---


@pytest.fixture
def host(running: Running) -> Host:
    made = Host(running.paths.arena, 8 * MIB, create=True)
    return made


@pytest.fixture
def table(host: Host) -> Table:
    made = Table(host)
    made.prepare()
    return made


def test_table_types_are_drawn_once(table: Table) -> None:
    first = table.add("a", MIB, "creating")
    first.set_state("free")
    assert table.add("b", MIB, "creating").type == first.type + 1


def test_table_entries_by_state(table: Table) -> None:
    table.add("a", MIB, "creating").set_state("served")
    table.add("b", 2 * MIB, "adopting")
    assert [(e.name, e.size, e.state) for e in table.entries()] == [
        ("a", MIB, "served"),
        ("b", 2 * MIB, "adopting"),
    ]


def test_table_entries_of_a_name(table: Table) -> None:
    added = {name: table.add(name, MIB, "served").number for name in ("g1", "g11", "g", "G1")}
    for name, number in added.items():
        assert [(e.name, e.number) for e in table.entries(name)] == [(name, number)]
    assert table.entries("g2") == []
    table.entries("g1")[0].set_state("free")
    assert table.entries("g1") == []


def test_table_reuses_free_entries(table: Table) -> None:
    numbers = [table.add(name, MIB, "served").number for name in "abc"]
    table.entries()[1].set_state("free")
    assert table.add("d", MIB, "served").number == numbers[1]


def test_table_longest_name(table: Table) -> None:
    table.add("a" * 15, MIB, "served")
    assert table.entries()[0].name == "a" * 15
    with pytest.raises(ValueError, match="too long"):
        table.add("a" * 16, MIB, "served")


def test_table_full_says_so(table: Table) -> None:
    for number in range(511):
        table.add(f"d{number}", MIB, "served")
    with pytest.raises(OSError, match="No space left"):
        table.add("more", MIB, "served")


def test_recover_drops_pages_of_no_device(running: Running, host: Host, table: Table) -> None:
    pool = host.new_pool()
    entry = table.add("a", MIB, "served")
    for page in (1, 255, 256):
        host.put_page(pool, entry.type << 4 | page % 16, page // 16, bytes(PAGE))
    host.put_page(pool, 99 << 4, 0, bytes(PAGE))
    host.close()
    again = Host(running.paths.arena, 8 * MIB, create=False)
    found = recover(again, pool, Table(again).entries())
    again.close()
    assert (found["stored_pages"], found["dropped_pages"]) == (2, 2)


# --- limits ---


@pytest.mark.parametrize("size", [SMALLEST_DEVICE, LARGEST_DEVICE, 100 * PAGE])
def test_device_size_accepted(size: int) -> None:
    assert check_device_size(size) == size


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        (SMALLEST_DEVICE - PAGE, "a device must be at least 64K"),
        (LARGEST_DEVICE + PAGE, "a device must be at most 16T"),
        (MIB + 1, "a device's size must be a multiple of 4096"),
    ],
)
def test_device_size_refused(size: int, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        check_device_size(size)


def test_pool_size_refused() -> None:
    with pytest.raises(UsageError, match="a pool must be at least 4M"):
        check_pool_size(4 * MIB - 1)


def test_codec_refused_names_the_choices() -> None:
    with pytest.raises(UsageError, match="'lzo' is not a codec: the choices are lz4, zstd, none"):
        check_compress("lzo")


def test_default_reserve_is_at_least_512_mib() -> None:
    assert default_reserve() >= 512 * MIB
