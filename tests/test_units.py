# SPDX-License-Identifier: BSD-3-Clause
"""Sizes, page counts, durations and shares."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preswapd.units import (
    PAGE_SIZE,
    UNITS,
    exact_duration,
    exact_percent,
    exact_size,
    format_duration,
    format_pages,
    format_size,
    parse_duration,
    parse_pages,
    parse_percent,
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


# --- durations ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("30min", 1800),
        ("30 min", 1800),
        ("2h", 7200),
        ("1.5h", 5400),
        (" 1d ", 86400),
    ],
)
def test_parse_duration(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "30M", "30x", "-1", "1e3", "1h30", "1.h", "٣", "9" * 20])
def test_what_is_no_duration(text: str) -> None:
    complaint = f"^{re.escape(repr(text))} is not a duration: write it like 30m, 2h or 90s$"
    with pytest.raises(ValueError, match=complaint):
        parse_duration(text)


def test_part_of_a_second_is_no_duration() -> None:
    with pytest.raises(ValueError, match=r"^'0\.5s' is not a whole number of seconds$"):
        parse_duration("0.5s")


@given(st.integers(0, 1 << 36))
def test_exact_duration_is_read_back(seconds: int) -> None:
    assert parse_duration(exact_duration(seconds)) == seconds


def test_exact_duration_is_short() -> None:
    found = [exact_duration(seconds) for seconds in (0, 90, 120, 5400, 7200, 86400)]
    assert found == ["0s", "90s", "2m", "90m", "2h", "1d"]


def test_format_duration() -> None:
    assert [format_duration(seconds) for seconds in (90.0, 1800, 0.5)] == ["90s", "30m", "0.5s"]


# --- shares ---


@pytest.mark.parametrize("text", ["5%", "5 %", "5", "5.0", " 5% ", "5.00%"])
def test_parse_percent(text: str) -> None:
    assert parse_percent(text) == 0.05


@pytest.mark.parametrize(
    "text", ["", "%", "-5%", "5%%", "1e1", "5,5%", "nan", "inf", "64M", "0.005"]
)
def test_what_is_no_percent(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(text))} is not a share: write it like"):
        parse_percent(text)


@given(st.integers(0, 99999))
def test_exact_percent_is_read_back(hundredths: int) -> None:
    share = parse_percent(f"{hundredths // 100}.{hundredths % 100:02}%")
    assert share == hundredths / 10000
    assert parse_percent(exact_percent(share)) == share


def test_exact_percent_is_short() -> None:
    assert [exact_percent(share) for share in (0, 0.05, 0.1, 0.075, 0.0701)] == [
        "0%",
        "5%",
        "10%",
        "7.5%",
        "7.01%",
    ]
