# SPDX-License-Identifier: BSD-3-Clause
"""Sizes (powers of 1024), page counts, durations and shares as people write and read them."""

import re

PAGE_SIZE = 4096

UNITS = "KMGT"
SIZE = re.compile(rf"([0-9]+)(?:\.([0-9]+))?(?:([{UNITS}])(?:iB|B)?|B)?", re.IGNORECASE)
# What a signed 64-bit file offset can hold: no size in use here is larger.
LARGEST = (1 << 63) - 1

DURATION = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?\s*(s|m|min|h|d)?")
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
# Of waits that are shorter than what people call a duration: their unit is never guessed.
MILLISECONDS = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)\s*(us|ms|s)")
IN_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)\s*%?")


def parse_size(text: str) -> int:
    """Bytes of "512M", "4G", "1GiB", "1.5G" or "4096"; ValueError with a sentence for the user."""
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size: write it like 512M, 4G, 1GiB or 4096")
    whole, decimals, unit = match.group(1), match.group(2) or "", match.group(3)
    scale: int = 1024 ** (UNITS.index(unit.upper()) + 1) if unit else 1
    parts: int = 10 ** len(decimals)
    size, rest = divmod(int(whole + decimals) * scale, parts)
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    if size > LARGEST:
        raise ValueError(f"{text!r} is too large")
    return size


def parse_pages(text: str) -> int:
    """Pages of "100" (a bare number counts pages) or "512M" (a size of whole pages)."""
    if text.strip().isascii() and text.strip().isdigit():
        pages = int(text)
        if pages > LARGEST // PAGE_SIZE:
            raise ValueError(f"{text!r} is too large")
        return pages
    size = parse_size(text)
    if size % PAGE_SIZE:
        raise ValueError(f"{text!r} is not a whole number of {PAGE_SIZE}-byte pages")
    return size // PAGE_SIZE


def format_size(size: int) -> str:
    """Short and rounded, as "73B", "512M" or "1.5G"."""
    if size < 1024:
        return f"{size}B"
    scale = 1
    for unit in UNITS:
        scale *= 1024
        # One decimal is shown, so what would round up to 1024 belongs to the next unit.
        if size * 100 < scale * 102395 or unit == UNITS[-1]:
            break
    return f"{size / scale:.1f}".removesuffix(".0") + unit


def format_pages(pages: int) -> str:
    """How many, and how much that is, as "1 page (4K)"."""
    return f"{pages} {'page' if pages == 1 else 'pages'} ({format_size(pages * PAGE_SIZE)})"


def exact_size(size: int) -> str:
    """The shortest text that parse_size reads back as the same number."""
    for power, unit in reversed(list(enumerate(UNITS, 1))):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


def parse_duration(text: str) -> int:
    """Seconds of "30m", "2h", "1.5h" or "90" (a bare number counts seconds)."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write it like 30m, 2h or 90s")
    whole, decimals, unit = match.group(1), match.group(2) or "", match.group(3) or "s"
    parts: int = 10 ** len(decimals)
    seconds, rest = divmod(int(whole + decimals) * SECONDS[unit], parts)
    if rest:
        raise ValueError(f"{text!r} is not a whole number of seconds")
    return seconds


def exact_duration(seconds: int) -> str:
    """The shortest text that parse_duration reads back as the same number."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % SECONDS[unit] == 0:
            return f"{seconds // SECONDS[unit]}{unit}"
    return f"{seconds}s"


def format_duration(seconds: float) -> str:
    """The same, also of a part of a second."""
    return exact_duration(int(seconds)) if seconds == int(seconds) else f"{seconds:g}s"


def parse_milliseconds(text: str) -> float:
    """Of "5ms", "2.5ms", "500us" or "1s"."""
    match = MILLISECONDS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a short time: write it like 5ms or 500us")
    return round(float(match.group(1)) * IN_MILLISECONDS[match.group(2)], 3)


def exact_milliseconds(milliseconds: float) -> str:
    """A text that parse_milliseconds reads back as the same number, where it came from there."""
    return f"{milliseconds:.3f}".rstrip("0").rstrip(".") + "ms"


def parse_percent(text: str) -> float:
    """The share that "5%", "5 %", "7.5%" or "5" is; at most two decimals."""
    match = PERCENT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a share: write it like 5% or 7.5%")
    return round(float(match.group(1)) * 100) / 10000


def exact_percent(share: float) -> str:
    """A text that parse_percent reads back as the same number, where it came from there."""
    return f"{share * 100:.2f}".rstrip("0").rstrip(".") + "%"
