# SPDX-License-Identifier: BSD-3-Clause
"""The swap header is the one that mkswap(8) writes."""

import os
import shutil
import struct
import subprocess
import uuid
from pathlib import Path

import pytest

from preswapd.preswap.files.header import MOST_BAD_PAGES, MOST_PAGES, SIGNATURE, swap_header
from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.running import MIB

# They lie in sbin, which is not in everybody's path.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def tool(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_header_fields() -> None:
    header = swap_header("g1", MIB)
    assert len(header) == PAGE
    assert header.endswith(SIGNATURE)
    assert header[:1024] == bytes(1024)
    assert [int.from_bytes(header[i : i + 4], "little") for i in (1024, 1028, 1032)] == [1, 255, 0]
    assert header[1052:1068] == b"g1".ljust(16, b"\0")


def test_header_uuid_is_a_random_one() -> None:
    found = uuid.UUID(bytes=swap_header("g1", MIB)[1036:1052])
    assert (found.version, found.variant) == (4, uuid.RFC_4122)


def test_header_uuid_differs() -> None:
    assert swap_header("g1", MIB)[1036:1052] != swap_header("g1", MIB)[1036:1052]


def test_header_longest_label() -> None:
    assert swap_header("a" * 15, MIB)[1052:1068] == b"a" * 15 + b"\0"


def test_header_counts_pages_in_32_bits() -> None:
    header = swap_header("g1", (MOST_PAGES + 10) * PAGE)
    assert header[1028:1032] == b"\xff" * 4


def bad_pages(header: bytes) -> list[int]:
    """As the kernel reads them: how many, and their numbers in an array up to the signature."""
    count = int.from_bytes(header[1032:1036], "little")
    return list(struct.unpack_from(f"<{count}I", header, 1536))


@pytest.mark.parametrize("size", [8 * MIB, 8 * MIB + PAGE, 256 * MIB, 8192 * MIB])
def test_header_lists_the_zone_as_bad_pages(size: int) -> None:
    header = swap_header("g1", size)
    listed = bad_pages(header)
    assert [0, *listed] == [page for part in zone(size // PAGE) for page in part]
    assert len(listed) <= MOST_BAD_PAGES == 637
    assert header[1536 + 4 * len(listed) : -10] == bytes(PAGE - 1546 - 4 * len(listed))
    assert header[1028:1032] == (size // PAGE - 1).to_bytes(4, "little")


def test_header_lists_no_bad_page_behind_its_last() -> None:
    listed = bad_pages(swap_header("g1", (MOST_PAGES + 100) * PAGE))
    assert listed[-1] == MOST_PAGES


def test_header_is_mkswaps(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    path.touch(0o600)
    os.truncate(path, MIB)
    subprocess.run([tool("mkswap"), "-L", "g1", path], check=True, capture_output=True)
    theirs, ours = path.read_bytes()[:PAGE], swap_header("g1", MIB)
    assert theirs[:1036] + theirs[1052:] == ours[:1036] + ours[1052:]


def swap_area(tmp_path: Path, size: int) -> Path:
    path = tmp_path / "swap"
    path.write_bytes(swap_header("g1", size))
    os.truncate(path, size)
    return path


@pytest.mark.parametrize("size", [MIB, 256 * MIB])
def test_header_is_known_to_blkid(tmp_path: Path, size: int) -> None:
    path = swap_area(tmp_path, size)
    probe = [tool("blkid"), "-p", "-o", "export", str(path)]
    found = subprocess.run(probe, check=True, capture_output=True, text=True).stdout
    assert {"TYPE=swap", "LABEL=g1"} <= set(found.split())


def test_header_is_known_to_swaplabel(tmp_path: Path) -> None:
    path = swap_area(tmp_path, 256 * MIB)
    shown = subprocess.run([tool("swaplabel"), path], check=True, capture_output=True, text=True)
    assert shown.stdout.split()[:2] == ["LABEL:", "g1"]
    subprocess.run([tool("swaplabel"), "-L", "g2", path], check=True, capture_output=True)
    assert bad_pages(path.read_bytes()[:PAGE]) == bad_pages(swap_header("g1", 256 * MIB))


def test_header_is_known_to_file(tmp_path: Path) -> None:
    path = swap_area(tmp_path, 256 * MIB)
    said = subprocess.run([tool("file"), "-b", path], check=True, capture_output=True, text=True)
    bad = len(bad_pages(swap_header("g1", 256 * MIB)))
    assert f"size 65535 pages, {bad} bad pages, LABEL=g1" in said.stdout
