# SPDX-License-Identifier: BSD-3-Clause
"""An arena file read by docs/arena-format.md alone: nothing here knows the C code."""

import ctypes
import ctypes.util
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SLAB, HEADER, PAGE, FORMAT = 65536, 32, 4096, 1
MAGIC = b"psarena1"
POOLS_AT, POOL_ENTRY = 4096, 32
SAME, RAW, LZ4, ZSTD = 1, 2, 3, 4
CODECS = {SAME: "same", RAW: "raw", LZ4: "lz4", ZSTD: "zstd"}


@cache
def library(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library(name))


def xxh3(data: bytes, seed: int = 0) -> int:
    function = library("xxhash").XXH3_64bits_withSeed
    function.restype = ctypes.c_uint64
    return int(function(data, ctypes.c_size_t(len(data)), ctypes.c_uint64(seed)))


def make_classes() -> list[tuple[int, int]]:
    """(slots, payload bytes) of class 1 and on."""
    classes: list[tuple[int, int]] = []
    for slots in range(15, SLAB // HEADER):
        payload = ((SLAB - HEADER) // slots - HEADER) // 16 * 16
        if payload < 16:
            break
        if not classes or classes[-1][1] - payload >= 32:
            classes.append((slots, payload))
    return classes


CLASSES = make_classes()


def unpack(codec: int, payload: bytes) -> bytes:
    if codec == SAME:
        return payload * (PAGE // 8)
    if codec == RAW:
        return payload
    out = ctypes.create_string_buffer(PAGE)
    if codec == LZ4:
        length = library("lz4").LZ4_decompress_safe(payload, out, len(payload), PAGE)
    else:
        function = library("zstd").ZSTD_decompress
        function.restype = ctypes.c_size_t
        length = function(out, ctypes.c_size_t(PAGE), payload, ctypes.c_size_t(len(payload)))
    assert length == PAGE
    return out.raw


@dataclass(frozen=True)
class Superblock:
    version: int
    slab_bytes: int
    header_bytes: int
    page_bytes: int
    uuid: bytes
    salt: int
    boot_id: str
    check: int


@dataclass(frozen=True)
class Slot:
    """A live slot and where it lies in the file."""

    header_at: int
    payload_at: int
    state: int
    object: int
    seq: int
    index: int
    pool: int
    length: int
    codec: int
    payload: bytes

    @property
    def handle(self) -> tuple[int, int, int]:
        return self.pool, self.object, self.index

    @property
    def page(self) -> bytes:
        return unpack(self.codec, self.payload)

    def numbers(self, last: int) -> bytes:
        what = self.length << 3 | self.codec
        middle = self.index << 32 | self.pool << 16 | what
        return struct.pack("<4Q", self.object, self.seq, middle, last)

    def checksum(self, salt: int) -> int:
        return xxh3(self.numbers(xxh3(self.payload)), salt) & 0xFFFFFFFF

    def state_word(self, salt: int) -> int:
        checksum = self.checksum(salt)
        check = xxh3(self.numbers(checksum), salt ^ 2**64 - 1) >> 40
        return 0xA5 << 56 | check << 32 | checksum


def superblock(data: bytes) -> Superblock:
    version, slab_bytes, header_bytes, page_bytes = struct.unpack_from("<4I", data, 8)
    salt, boot, check = struct.unpack_from("<Q40sQ", data, 40)
    boot_id = boot.rstrip(b"\0").decode()
    return Superblock(
        version, slab_bytes, header_bytes, page_bytes, data[24:40], salt, boot_id, check
    )


def with_salt(data: bytes, salt: int) -> bytes:
    """The first page of an arena, made over for another salt."""
    front = data[:40] + struct.pack("<Q", salt) + data[48:88]
    return front + struct.pack("<Q", xxh3(front[8:88])) + data[96:]


def class_word(salt: int, slab: int, number: int) -> int:
    return xxh3(struct.pack("<2Q", slab, number), salt) & ~0xFF | number


def slots_in(data: bytes, slab: int) -> Iterator[Slot]:
    (word,) = struct.unpack_from("<Q", data, slab * SLAB)
    if word == 0:
        return
    assert word == class_word(superblock(data).salt, slab, word & 0xFF)
    slots, room = CLASSES[(word & 0xFF) - 1]
    for number in range(slots):
        header_at = slab * SLAB + HEADER * (1 + number)
        payload_at = slab * SLAB + HEADER * (1 + slots) + room * number
        state, obj, seq, index, pool, what = struct.unpack_from("<3QI2H", data, header_at)
        if state:
            payload = data[payload_at : payload_at + (what >> 3)]
            yield Slot(
                header_at, payload_at, state, obj, seq, index, pool, what >> 3, what & 7, payload
            )


def read_front(path: Path) -> bytes:
    """As much of the file as may hold anything in a small test: 64 slabs."""
    with path.open("rb") as file:
        return file.read(64 * SLAB)


def slots_of(path: Path) -> list[Slot]:
    """Every live slot of the first 63 slabs."""
    data = read_front(path)
    return [slot for slab in range(1, len(data) // SLAB) for slot in slots_in(data, slab)]


def flip_bit(path: Path, byte: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        (value,) = file.read(1)
        file.seek(byte)
        file.write(bytes([value ^ 1 << bit]))
