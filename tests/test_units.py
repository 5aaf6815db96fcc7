# SPDX-License-Identifier: BSD-3-Clause
"""Sizes and page counts."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.units import (
    PAGE_SIZE,
    UNITS,
    exact_size,
    format_pages,
    format_size,
    parse_pages,
    parse_size,
)

SIZES = st.integers(min_value=0, max_value=1 << 62)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("73B", 73),
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        ("4G", 4 << 30),
        ("1GiB", 1 << 30),
        ("1kb", 1024),
        ("2T", 2 << 40),
        ("1.5G", 3 << 29),
        (" 1K ", 1024),
    ],
)
def test_parse_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "12X", "-1", "+1", "1 K", "1e3", "0x10", "1.G", "٣"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(text))} is not a size: write it like"):
        parse_size(text)


def test_part_of_a_byte_is_no_size() -> None:
    with pytest.raises(ValueError, match=r"^'0\.3K' is not a whole number of bytes$"):
        parse_size("0.3K")


def test_size_that_no_file_has() -> None:
    with pytest.raises(ValueError, match=r"^'9999999T' is too large$"):
        parse_size("9999999T")


@given(SIZES)
def test_exact_size_is_read_back(size: int) -> None:
    assert parse_size(exact_size(size)) == size


@given(SIZES)
def test_format_size_is_close(size: int) -> None:
    text = format_size(size)
    shown = float(text[:-1]) * 1024 ** (UNITS.find(text[-1]) + 1)
    unit = 1024 ** (UNITS.find(text[-1]) + 1)
    assert abs(shown - size) <= unit * 0.051
    assert float(text[:-1]) < 1024 or text[-1] == UNITS[-1]


def test_format_pages() -> None:
    assert [format_pages(pages) for pages in (0, 1, 512)] == [
        "0 pages (0B)",
        "1 page (4K)",
        "512 pages (2M)",
    ]


@given(SIZES, st.sampled_from(["", *UNITS, *UNITS.lower()]), st.sampled_from(["", "iB", "B"]))
def test_units_are_powers_of_1024(number: int, unit: str, suffix: str) -> None:
    number %= 1 << 20
    expected = number * 1024 ** (UNITS.find(unit.upper()) + 1 if unit else 0)
    text = f"{number}{unit}{suffix if unit else ''}"
    assert parse_size(text) == expected


@given(st.text(max_size=8))
def test_any_text_is_a_size_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_size(text) >= 0


def test_bare_number_counts_pages() -> None:
    assert parse_pages("100") == 100


def test_suffix_counts_bytes() -> None:
    assert parse_pages("512M") == (512 << 20) // PAGE_SIZE


@pytest.mark.parametrize("text", ["1K", "4095B"])
def test_part_of_a_page_is_no_number_of_pages(text: str) -> None:
    with pytest.raises(ValueError, match=f"^'{text}' is not a whole number of 4096-byte pages$"):
        parse_pages(text)


@pytest.mark.parametrize("text", ["-1", "x"])
def test_what_is_no_number_of_pages(text: str) -> None:
    with pytest.raises(ValueError, match=f"^'{text}' is not a size: write it like"):
        parse_pages(text)


def test_more_pages_than_any_file_has() -> None:
    with pytest.raises(ValueError, match=r"^'9{30}' is too large$"):
        parse_pages("9" * 30)
