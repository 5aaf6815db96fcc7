# SPDX-License-Identifier: BSD-3-Clause
"""Whether a file is there, as those ask whose answer decides over pages."""

from pathlib import Path

import pytest

import preswapd.preswap
from preswapd.host.filesystems import existing_parent, is_directory, is_file, is_there


def test_what_cannot_be_seen_is_not_taken_for_absent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert is_there(tmp_path / "file")
    assert not is_there(tmp_path / "other")
    assert not is_there(tmp_path / "file/below")
    assert (is_file(tmp_path / "file"), is_directory(tmp_path / "file")) == (True, False)
    assert (is_file(tmp_path), is_directory(tmp_path)) == (False, True)
    for ask in (is_there, is_file, is_directory):
        with pytest.raises(OSError, match="File name too long"):
            ask(tmp_path / ("x" * 300))
    with pytest.raises(OSError, match="File name too long"):
        existing_parent(tmp_path / ("x" * 300) / "below")


def test_the_swap_device_asks_in_no_other_way() -> None:
    """Path.exists() takes any error for absence, from Python 3.14 on."""
    room = Path(preswapd.preswap.__file__).parent
    sources = list(room.rglob("*.py"))
    assert sources
    assert not [path for path in sources if ".exists(" in path.read_text()]
