# SPDX-License-Identifier: BSD-3-Clause
"""Whether memory that a balloon has given back is filled up again."""

from pathlib import Path

import pytest

from preswapd.host.huge_pages import MOST_MISSING, holes_are_filled


@pytest.mark.parametrize(
    ("enabled", "most", "filled"),
    [
        ("always [madvise] never", "511", True),
        ("[always] madvise never", "1", True),
        ("[always] madvise never", "0", False),
        ("always madvise [never]", "511", False),
        ("[always] madvise never", "?", False),
    ],
)
def test_holes_are_filled_unless_told_not_to(
    tmp_path: Path, enabled: str, most: str, filled: bool
) -> None:
    (tmp_path / "khugepaged").mkdir()
    (tmp_path / "enabled").write_text(enabled + "\n")
    (tmp_path / MOST_MISSING).write_text(most + "\n")
    assert holes_are_filled(tmp_path) == filled


def test_kernel_without_huge_pages(tmp_path: Path) -> None:
    assert not holes_are_filled(tmp_path)
