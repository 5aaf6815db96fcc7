# SPDX-License-Identifier: BSD-3-Clause
"""What the guest works on: real files, always as much as was asked for."""

import hashlib
from pathlib import Path

import pytest

from preswapd.demo.checks import DemoError
from preswapd.demo.material import MIB, Material, below, gather, taken, texts


def test_gather_takes_whole_mebibytes_of_this_host() -> None:
    material = gather(2, 1)
    assert (len(material.files), len(material.text)) == (2 * MIB, MIB)
    assert b"import" in material.text


def test_taken_repeats_what_is_too_little(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert taken([tmp_path / "a"], 8) == b"abcabcab"


def test_taken_passes_over_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert taken([tmp_path, tmp_path / "none", tmp_path / "a"], 3) == b"abc"


def test_taken_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="no files"):
        taken(below([str(tmp_path)]), 8)


def test_texts_are_known_by_their_names() -> None:
    assert list(texts([Path("a.py"), Path("a.so"), Path("b.h")])) == [Path("a.py"), Path("b.h")]


def test_file_sums_are_of_each_mebibyte() -> None:
    material = Material(b"a" * MIB + b"b" * MIB, b"")
    assert material.file_sums == [hashlib.sha256(c * MIB).hexdigest() for c in (b"a", b"b")]
