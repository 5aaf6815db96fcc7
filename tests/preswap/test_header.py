# SPDX-License-Identifier: BSD-3-Clause
"""The swap header is the one that mkswap(8) writes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from preswapd.preswap.files.header import MOST_PAGES, SIGNATURE, swap_header
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


def test_header_uuid_differs() -> None:
    assert swap_header("g1", MIB)[1036:1052] != swap_header("g1", MIB)[1036:1052]


def test_header_longest_label() -> None:
    assert swap_header("a" * 15, MIB)[1052:1068] == b"a" * 15 + b"\0"


def test_header_counts_pages_in_32_bits() -> None:
    header = swap_header("g1", (MOST_PAGES + 10) * PAGE)
    assert header[1028:1032] == b"\xff" * 4


def test_header_is_mkswaps(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    path.touch(0o600)
    os.truncate(path, MIB)
    subprocess.run([tool("mkswap"), "-L", "g1", path], check=True, capture_output=True)
    theirs, ours = path.read_bytes()[:PAGE], swap_header("g1", MIB)
    assert theirs[:1036] + theirs[1052:] == ours[:1036] + ours[1052:]


def test_header_is_known_to_blkid(tmp_path: Path) -> None:
    path = tmp_path / "swap"
    path.write_bytes(swap_header("g1", MIB).ljust(MIB, b"\0"))
    probe = [tool("blkid"), "-p", "-o", "export", str(path)]
    found = subprocess.run(probe, check=True, capture_output=True, text=True).stdout
    assert {"TYPE=swap", "LABEL=g1"} <= set(found.split())
