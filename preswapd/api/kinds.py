# SPDX-License-Identifier: BSD-3-Clause
"""The kinds of values that settings have: what each may be, and how it is read and written.

Both ends of the control API and the configuration read values with the functions here, so that a
size is the same size, and refused with the same sentence, wherever it is said.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preswapd.codecs import COMPRESS
from preswapd.errors import UsageError
from preswapd.paths import check_instance_name, parse_path
from preswapd.units import (
    PAGE_SIZE,
    exact_duration,
    exact_milliseconds,
    exact_percent,
    exact_size,
    parse_duration,
    parse_milliseconds,
    parse_pages,
    parse_percent,
    parse_size,
)

SMALLEST_POOL = 4 << 20
# What an arena's slot numbers reach.
LARGEST_POOL = 128 << 30
SMALLEST_DEVICE = 64 << 10
# Of one image: what takes fewer pages than one request asks for caches nothing.
SMALLEST_CACHE = 1 << 20
# A swap header counts pages in 32 bits.
LARGEST_DEVICE = 16 << 40
MOST_THREADS = 256
# Of a pool's limit: from a hundredth below it on, new pages are rejected, and a pool that is half
# empty was meant to be smaller.
LEAST_ROOM, MOST_ROOM = 0.01, 0.5
# How long a page was not touched, in seconds.  Ages begin with the server: who waits for longer has
# it switched off.
SHORTEST_AGE, LONGEST_AGE = 1, 30 * 86400
# What pages are compressed with that nobody touches: what takes more room than lz4 is no choice.
RECOMPRESS = ("zstd", "lz4")
# How TLS clients show who they are: certificates, or keys that both ends have.
X509, PSK = "x509", "psk"
# How long a read waits for a store before the disk is asked, in milliseconds: what a network needs
# at the least, and what a guest notices.
SHORTEST_WAIT, LONGEST_WAIT = 0.1, 1000.0
# Of a store over TCP: one node, several, or some of a cluster, which know the others.
STORE = re.compile(
    r"(?P<scheme>rediss?)://(?:(?P<user>[^@/?#]*)@)?(?P<hosts>[^/?#@]*)(?:/(?P<number>[0-9]{0,4}))?"
)
HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?")

# At which read a page of an image is cached.
ADMIT = ("first", "second")

# Words that stand for a value.
OFF = "off"
AUTO = "auto"


def unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Kind:
    """How values of one kind are read and written.

    `parse` and `from_toml` raise ValueError or UsageError, with a sentence for the operator.
    """

    metavar: str  # what --help calls a value
    parse: Callable[[str], Any]  # the text of an option or of sysctl
    from_toml: Callable[[Any], Any]  # what TOML made of a file's value
    to_toml: Callable[[Any], str | int] = unchanged
    to_sysctl: Callable[[Any], str | int] = unchanged
    choices: tuple[str, ...] = ()  # all values, where they are few
    path: str | None = None  # "dir": the shell completes directories


# --- what TOML makes of a value ---


def text_value(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string in quotes is expected")
    return value


def size_value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('a size is expected, like "512M"')
    return str(value)


def short_time_value(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError('a short time is expected, like "5ms"')
    return value


def duration_value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('a duration is expected, like "30m"')
    return str(value)


def percent_value(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError('a share is expected, like "5%"')
    return str(value)


def number_value(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a number is expected")
    return value


def boolean_value(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is expected, without quotes")
    return value


def path_value(value: Any) -> Path:
    path = Path(text_value(value))
    if not path.is_absolute() or "\0" in value:
        raise ValueError(f"{value!r} is not an absolute path")
    return path


# --- what values may be ---


def check_pool_size(size: int) -> int:
    if size < SMALLEST_POOL:
        raise UsageError(f"a pool must be at least {exact_size(SMALLEST_POOL)}")
    return size


def check_device_size(size: int) -> int:
    if size < SMALLEST_DEVICE:
        raise UsageError(f"a device must be at least {exact_size(SMALLEST_DEVICE)}")
    if size > LARGEST_DEVICE:
        raise UsageError(f"a device must be at most {exact_size(LARGEST_DEVICE)}")
    if size % PAGE_SIZE:
        raise UsageError(f"a device's size must be a multiple of {PAGE_SIZE}")
    return size


def check_compress(name: str, choices: Sequence[str] = COMPRESS) -> str:
    if name not in choices:
        raise UsageError(f"{name!r} is not a codec: the choices are {', '.join(choices)}")
    return name


def check_cache(size: int) -> int:
    if size < SMALLEST_CACHE:
        raise UsageError(f"a cache must be at least {exact_size(SMALLEST_CACHE)}")
    return size


def check_admit(name: str) -> str:
    if name not in ADMIT:
        raise UsageError(f"{name!r} is no such read: the choices are {', '.join(ADMIT)}")
    return name


def check_tls_mode(name: str) -> str:
    if name not in (X509, PSK):
        raise ValueError(f"{name!r} is no kind of keys: the choices are {X509}, {PSK}")
    return name


def check_room(share: float) -> float:
    if share and not LEAST_ROOM <= share <= MOST_ROOM:
        most = exact_percent(MOST_ROOM)
        raise ValueError(
            f"{exact_percent(share)} is out of range: from {exact_percent(LEAST_ROOM)} to {most}"
        )
    return share


def check_age(seconds: int) -> int:
    if not SHORTEST_AGE <= seconds <= LONGEST_AGE:
        raise ValueError(
            f"{exact_duration(seconds)} is out of range: from {exact_duration(SHORTEST_AGE)} to"
            f" {exact_duration(LONGEST_AGE)}"
        )
    return seconds


def check_wait(milliseconds: float) -> float:
    if not SHORTEST_WAIT <= milliseconds <= LONGEST_WAIT:
        raise ValueError(
            f"{exact_milliseconds(milliseconds)} is out of range: from"
            f" {exact_milliseconds(SHORTEST_WAIT)} to {exact_milliseconds(LONGEST_WAIT)}"
        )
    return milliseconds


def check_store(text: str) -> str:
    """A password in it would be shown wherever the settings are; no word of it is said here."""
    if re.fullmatch(r"unix:///[^?#]+", text):
        return text
    found = STORE.fullmatch(text)
    if found is None:
        raise ValueError("it is not the URL of a store, like redis://10.0.0.1:6379")
    if ":" in (found["user"] or ""):
        raise ValueError(
            "a password in it would be shown by ps and --show-config: write it into a file that"
            " the server alone can read, and name that with password-file"
        )
    hosts = found["hosts"].split(",")
    for host in hosts:
        match = HOST.fullmatch(host)
        if match is None or not 1 <= int(match["port"] or 6379) <= 65535:
            raise ValueError(f"{host!r} is not HOST or HOST:PORT, like 10.0.0.1:6379")
        if match["v6"] and not is_ipv6(match["v6"]):
            raise ValueError(f"{host!r} has no IPv6 address in its brackets, like [fd00::1]:6379")
    return text


def is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def check_rate(size: int) -> int:
    """Who types a bare 32 means megabytes."""
    if size < PAGE_SIZE:
        raise ValueError(f"{size} bytes a second is less than a page: at least 4K, like 32M")
    return size


def check_threads(count: int) -> int:
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"{count} is out of range: from 1 to {MOST_THREADS}")
    return count


def check_listen(text: str) -> str:
    """Whether it may be served depends on TLS, which another setting says."""
    _, port = split_address(text)
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is not a port")
    return text


def is_loopback(text: str) -> bool:
    """Of ADDR:PORT, whether only this host can reach it."""
    host, _ = split_address(text)
    return ipaddress.ip_address(host).is_loopback


def split_address(text: str) -> tuple[str, int]:
    """ADDR:PORT, an IPv6 address in brackets."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    try:
        ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        return "127.0.0.1" if host == "localhost" else host, parse_number(port)
    except ValueError:
        raise ValueError(f"{text!r} is not ADDR:PORT, like 127.0.0.1:10809") from None


def parse_number(text: str) -> int:
    """Of digits alone: int() would take "1_0" and digits of other scripts too."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def parse_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise UsageError("it must be true or false")
    return text == "true"


def parse_flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise UsageError("it must be 0 or 1")
    return text == "1"


# --- the kinds ---


def text_kind(metavar: str, parse: Callable[[str], Any]) -> Kind:
    return Kind(metavar, parse, lambda value: parse(text_value(value)))


def codec_kind(choices: tuple[str, ...]) -> Kind:
    return replace(text_kind("codec", lambda name: check_compress(name, choices)), choices=choices)


def size_kind(check: Callable[[int], int] = unchanged) -> Kind:
    """Bytes."""

    def parse(text: str) -> int:
        return check(parse_size(text))

    return Kind("size", parse, lambda value: parse(size_value(value)), exact_size)


def rate_kind() -> Kind:
    """Bytes a second."""

    def parse(text: str) -> int:
        return check_rate(parse_size(text.strip().removesuffix("/s")))

    return Kind("rate", parse, lambda value: parse(size_value(value)), exact_size)


def age_kind() -> Kind:
    """Seconds."""

    def parse(text: str) -> int:
        return check_age(parse_duration(text))

    return Kind("duration", parse, lambda value: parse(duration_value(value)), exact_duration)


def wait_kind() -> Kind:
    """Milliseconds."""

    def parse(text: str) -> float:
        return check_wait(parse_milliseconds(text))

    return Kind(
        "time",
        parse,
        lambda value: parse(short_time_value(value)),
        exact_milliseconds,
        exact_milliseconds,
    )


def room_kind() -> Kind:
    """A share.  As text everywhere: of a number nobody knows whether 1 is all or a hundredth."""

    def parse(text: str) -> float:
        return check_room(parse_percent(text))

    return Kind(
        "percent",
        parse,
        lambda value: parse(percent_value(value)),
        exact_percent,
        exact_percent,
    )


def or_word(kind: Kind, word: str, meant: Any) -> Kind:
    """The same, but one word stands for a value of its own, as "off" or "unlimited" does."""

    def read_by(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def read_either(said: Any) -> Any:
            if said == word:
                return meant
            try:
                return read(said)
            except (ValueError, UsageError) as error:
                # In TOML a word has quotes, and who has written none is told so.
                way = word if isinstance(said, str) else f'"{word}"'
                raise ValueError(f"{error}, or {way}") from None

        return read_either

    def written_by(write: Callable[[Any], str | int]) -> Callable[[Any], str | int]:
        return lambda value: word if value == meant else write(value)

    return replace(
        kind,
        parse=read_by(kind.parse),
        from_toml=read_by(kind.from_toml),
        to_toml=written_by(kind.to_toml),
        to_sysctl=written_by(kind.to_sysctl),
        choices=(*kind.choices, word) if kind.choices else (),
    )


INSTANCE_NAME = text_kind("name", check_instance_name)
DIRECTORY = Kind("dir", parse_path, path_value, str, str, path="dir")
FILE = Kind("file", parse_path, path_value, str, str, path="file")
SIZE = size_kind()
POOL_SIZE = size_kind(check_pool_size)
GOVERNED = or_word(POOL_SIZE, OFF, OFF)
DEVICE_SIZE = size_kind(check_device_size)
CACHE_SIZE = size_kind(check_cache)
ADMISSION = replace(text_kind("read", check_admit), choices=ADMIT)
PAGES = Kind("pages", parse_pages, lambda value: parse_pages(size_value(value)))
CODEC = codec_kind(COMPRESS)
THREADS = Kind(
    "n",
    lambda text: check_threads(parse_number(text)),
    lambda value: check_threads(number_value(value)),
)
LISTEN = text_kind("addr:port", check_listen)
TLS_MODE = replace(text_kind("mode", check_tls_mode), choices=(X509, PSK))
BOOLEAN = Kind("true|false", parse_boolean, boolean_value)
FLAG = Kind("0|1", parse_flag, lambda value: parse_flag(str(number_value(value))), int, int)
ROOM = or_word(room_kind(), OFF, 0.0)
AGE = or_word(age_kind(), OFF, OFF)
TIME_TO_LIVE = age_kind()
STORE_URL = text_kind("url", check_store)
WAIT = wait_kind()
AGE_OR_AUTO = or_word(or_word(age_kind(), AUTO, AUTO), OFF, OFF)
RATE = or_word(rate_kind(), OFF, OFF)
RECOMPRESS_CODEC = or_word(codec_kind(RECOMPRESS), OFF, OFF)
