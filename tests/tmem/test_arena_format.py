# SPDX-License-Identifier: BSD-3-Clause
"""The arena's format, held to docs/arena-format.md: a release must read what the last one wrote.

When a number in here has to change, the format version has to change with it, and the code has to
read the version before: arenas outlive the process that made them.
"""

import re
import struct
from pathlib import Path

import pytest

from preswapd.errors import RefusedError
from preswapd.tmem._tmem import Host
from tests.tmem import arena_file
from tests.tmem.arena_file import CLASSES, slots_of, xxh3
from tests.tmem.pages import KINDS, make_page

DOCUMENT = Path(__file__).parents[2] / "docs" / "arena-format.md"
SALT = 0x0123456789ABCDEF
TEXT = make_page("text", 7)


@pytest.fixture
def salted(shm: Path) -> Host:
    """A host whose arena has a salt that is always the same, and one pool."""
    path = shm / "salted"
    Host(path, 1 << 20, create=True, boot_id="b").close()
    with path.open("r+b") as file:
        front = file.read(4096)
        file.seek(0)
        file.write(arena_file.with_salt(front, SALT))
    host = Host(path, 1 << 20, create=False)
    host.recover()
    host.new_pool()
    return host


def test_superblock(shm: Path) -> None:
    host = Host(shm / "arena", 1 << 20, create=True, boot_id="0123-4567")
    data = arena_file.read_front(shm / "arena")[:4096]
    found = arena_file.superblock(data)
    assert data[:8] == arena_file.MAGIC
    assert (found.version, found.slab_bytes, found.header_bytes, found.page_bytes) == (
        1,
        65536,
        32,
        4096,
    )
    assert (found.uuid.hex(), found.boot_id) == (host.uuid, "0123-4567")
    assert found.check == xxh3(data[8:88])
    assert data[96:] == bytes(4000)


def test_two_arenas_have_two_salts(shm: Path) -> None:
    for name in "ab":
        Host(shm / name, 1 << 20, create=True).close()
    a, b = (arena_file.superblock(arena_file.read_front(shm / name)) for name in "ab")
    assert a.salt != b.salt
    assert a.uuid != b.uuid


def test_class_table() -> None:
    assert len(CLASSES) == 72
    assert CLASSES[:3] == [(15, 4320), (16, 4048), (17, 3808)]
    assert CLASSES[70:] == [(585, 64), (819, 32)]
    assert xxh3(repr(CLASSES).encode()) == 0xF4E300BA7863BF98


def test_every_class_is_laid_out_so(host: Host) -> None:
    pool = host.new_pool()
    for length in range(1, 4048, 7):
        host.put_page(pool, 0, length, make_page("half", length), compress="lz4")
    data = arena_file.read_front(Path(host.path))
    for slab in range(1, 64):
        for slot in arena_file.slots_in(data, slab):
            smaller = CLASSES[(data[slab * 65536] & 0xFF) :][:1]
            assert slot.page == make_page("half", slot.index)
            assert not smaller or smaller[0][1] < slot.length


def test_class_table_in_the_document() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\d+) ", DOCUMENT.read_text(), re.M)
    table = {int(number): (int(slots), int(room)) for number, slots, room in rows}
    named = {number: row for number, row in table.items() if row in CLASSES}
    assert {number: CLASSES[number - 1] for number in (1, 2, 3, 71, 72)} == named


def test_pool_entry(salted: Host) -> None:
    salted.new_pool(b"0123456789abcdef")
    with open(salted.path, "rb") as file:
        file.seek(arena_file.POOLS_AT + arena_file.POOL_ENTRY)
        state, uuid, check = struct.unpack("<Q16sQ", file.read(32))
    assert state == 0x706F6F6C_00000001
    assert uuid == b"0123456789abcdef"
    assert check == xxh3(uuid, SALT ^ (1 << 32 | 1))


def test_pool_table_holds_64(salted: Host) -> None:
    assert [salted.new_pool() for _ in range(63)] == list(range(1, 64))
    with pytest.raises(OSError, match="no room for another pool"):
        salted.new_pool()
    salted.destroy_pool(5)
    assert salted.new_pool() == 5


def test_slot_header(salted: Host) -> None:
    """Object, number, index, pool, length and codec, and both checks, bit by bit."""
    salted.put_page(0, 0x1122334455667788, 0x99AABBCC, make_page("same", 7))
    (slot,) = slots_of(Path(salted.path))
    with open(salted.path, "rb") as file:
        file.seek(slot.header_at)
        header = file.read(32)
    assert header.hex(" ", 8) == (
        "be656c16b80a03a5 8877665544332211 0100000000000000 ccbbaa9900004100"
    )


def test_class_word(salted: Host) -> None:
    salted.put_page(0, 0, 0, bytes(4096))
    data = arena_file.read_front(Path(salted.path))
    assert struct.unpack_from("<Q", data, 65536) == (0x578ACA8BC01CBF48,)


@pytest.mark.parametrize(
    ("kind", "compress", "codec"),
    [
        ("zeros", "lz4", arena_file.SAME),
        ("same", "zstd", arena_file.SAME),
        ("same", "none", arena_file.SAME),
        ("text", "none", arena_file.RAW),
        ("noise", "lz4", arena_file.RAW),
        ("noise", "zstd", arena_file.RAW),
        ("text", "lz4", arena_file.LZ4),
        ("text", "zstd", arena_file.ZSTD),
    ],
)
def test_codec(salted: Host, kind: str, compress: str, codec: int) -> None:
    salted.put_page(0, 0, 0, make_page(kind, 7), compress=compress)
    (slot,) = slots_of(Path(salted.path))
    assert slot.codec == codec
    assert slot.page == make_page(kind, 7)


def test_zstd_frame_has_no_size_and_no_checksum(salted: Host) -> None:
    salted.put_page(0, 0, 0, TEXT, compress="zstd")
    (slot,) = slots_of(Path(salted.path))
    descriptor = slot.payload[4]
    assert descriptor & 0b11100111 == 0b00000000


def test_a_stranger_finds_every_page(host: Host) -> None:
    pools = [host.new_pool() for _ in range(2)]
    put = {
        (pool, obj, index): make_page(KINDS[index % len(KINDS)], index)
        for pool in pools
        for obj in (0, 2**64 - 1)
        for index in range(60)
    }
    for number, (handle, page) in enumerate(put.items()):
        host.put_page(*handle, page, compress=("lz4", "zstd", "none")[number % 3])
    slots = slots_of(Path(host.path))
    assert {slot.handle: slot.page for slot in slots} == put
    salt = arena_file.superblock(arena_file.read_front(Path(host.path))).salt
    assert all(slot.state == slot.state_word(salt) for slot in slots)


def test_sequence_numbers_rise(host: Host) -> None:
    pool = host.new_pool()
    for index in (2, 0, 1, 2):
        host.put_page(pool, 0, index, TEXT)
    slots = sorted(slots_of(Path(host.path)), key=lambda slot: slot.seq)
    assert [(slot.index, slot.seq) for slot in slots] == [(0, 2), (1, 3), (2, 4)]


def test_sequence_goes_on_after_recovery(shm: Path) -> None:
    host = Host(shm / "arena", 1 << 20, create=True)
    pool = host.new_pool()
    host.put_page(pool, 0, 0, TEXT)
    host.close()
    again = Host(shm / "arena", 1 << 20, create=False)
    again.recover()
    again.put_page(pool, 0, 1, TEXT)
    assert sorted(slot.seq for slot in slots_of(shm / "arena")) == [1, 2]


def test_no_slot_shows_before_its_pool_exists(shm: Path) -> None:
    """A slot of an unknown pool is dropped, not kept for a pool to come."""
    host = Host(shm / "arena", 1 << 20, create=True)
    host.put_page(host.new_pool(), 0, 0, TEXT)
    host.close()
    with (shm / "arena").open("r+b") as file:
        file.seek(arena_file.POOLS_AT)
        file.write(bytes(8))
    again = Host(shm / "arena", 1 << 20, create=False)
    assert again.recover()["dropped_pages"] == 1
    assert not again.get_page(again.new_pool(), 0, 0, bytearray(4096))


def test_another_version_is_named(shm: Path) -> None:
    Host(shm / "arena", 1 << 20, create=True).close()
    with (shm / "arena").open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("<I", 9))
    with pytest.raises(RefusedError, match=r"version 9, this release reads version 1"):
        Host(shm / "arena", 1 << 20, create=False)


@pytest.mark.parametrize("size", [0, 95, 65536, 131072 + 4096])
def test_truncated_file_is_refused(shm: Path, size: int) -> None:
    Host(shm / "arena", 1 << 20, create=True).close()
    with (shm / "arena").open("r+b") as file:
        file.truncate(size)
    with pytest.raises(RefusedError):
        Host(shm / "arena", 1 << 20, create=False)


def test_link_is_refused(shm: Path) -> None:
    Host(shm / "arena", 1 << 20, create=True).close()
    (shm / "link").symlink_to(shm / "arena")
    with pytest.raises(RefusedError):
        Host(shm / "link", 1 << 20, create=False)


def test_create_leaves_an_arena_alone(shm: Path) -> None:
    Host(shm / "arena", 1 << 20, create=True).close()
    before = (shm / "arena").stat().st_ino
    with pytest.raises(FileExistsError):
        Host(shm / "arena", 1 << 20, create=True)
    assert (shm / "arena").stat().st_ino == before


def test_missing_arena(shm: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Host(shm / "arena", 1 << 20, create=False)


def test_only_we_may_read_it(host: Host) -> None:
    assert Path(host.path).stat().st_mode & 0o777 == 0o600
