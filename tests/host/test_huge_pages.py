# SPDX-License-Identifier: BSD-3-Clause
"""Whether memory that a balloon has given back is filled up again."""

from pathlib import Path

import pytest

from preswapd.host.huge_pages import MOST_MISSING, OF_2M, OF_ALL, holes_are_filled


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


@pytest.mark.parametrize(
    ("of_all", "of_2m", "filled"),
    [
        ("always madvise [never]", "[always] inherit madvise never", True),
        ("always madvise [never]", "always inherit [madvise] never", True),
        ("always madvise [never]", "always [inherit] madvise never", False),
        ("always [madvise] never", "always [inherit] madvise never", True),
        ("[always] madvise never", "always inherit madvise [never]", False),
    ],
)
def test_pages_of_2m_have_a_switch_of_their_own(
    tmp_path: Path, of_all: str, of_2m: str, filled: bool
) -> None:
    for name, text in ((OF_ALL, of_all), (OF_2M, of_2m), (MOST_MISSING, "511")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert holes_are_filled(tmp_path) == filled


def test_kernel_without_huge_pages(tmp_path: Path) -> None:
    assert not holes_are_filled(tmp_path)
