# SPDX-License-Identifier: BSD-3-Clause
"""URLs, slots, and the commands that a store is told."""

import pytest
from redis.crc import key_slot

from preswapd.api.kinds import check_store
from preswapd.remote.courier.addresses import Address, UrlError, parse
from preswapd.remote.courier.commands import Commands
from preswapd.remote.courier.slots import Redirect, redirect_in, slot_of


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("redis://a", [("a", 6379)]),
        ("redis://a:1,b:2,c", [("a", 1), ("b", 2), ("c", 6379)]),
        ("redis://a:1,[::1]:2", [("a", 1), ("::1", 2)]),
        ("rediss://u@a:1/2", [("a", 1)]),
        ("redis://[::1]:7,[fe80::1]", [("::1", 7), ("fe80::1", 6379)]),
        ("unix:///run/a%20b", [("/run/a b", 0)]),
    ],
)
def test_urls(url: str, addresses: list[tuple[str, int]]) -> None:
    assert check_store(url) == url
    parsed = parse(url)
    assert parsed.written == url
    assert list(parsed.addresses) == addresses
    assert parsed.secure == url.startswith("rediss")


def test_what_a_url_says_of_a_user() -> None:
    parsed = parse("redis://u%3A@a/3")
    assert (parsed.username, parsed.database) == ("u:", 3)


@pytest.mark.parametrize(
    "url",
    [
        *("", "a", "a:6379", "http://a", "redis://", "redis://a:0", "redis://a:99999"),
        *("redis://a,", "redis://[::1", "redis://a/x", "redis://a?b=1", "unix://a", "unix://a/b"),
        *("redis://:secret@a", "redis://me:secret@a"),
    ],
)
def test_urls_that_are_none(url: str) -> None:
    """Nor are they for the configuration: a courier that ended for its URL would be started anew
    without end."""
    with pytest.raises(UrlError):
        parse(url)
    with pytest.raises(ValueError, match=r"store|HOST|password"):
        check_store(url)


def test_an_address_as_it_is_written() -> None:
    written = [str(Address(*each)) for each in (("a", 1), ("::1", 2), ("/run/s", 0))]
    assert written == ["a:1", "[::1]:2", "/run/s"]


@pytest.mark.parametrize(
    "key", [b"a", b"{a}b", b"{}a", b"a{b", b"}{a}", b"{{a}}", b"a{b}{c}", bytes(range(256))]
)
def test_slots_are_those_of_a_client_library(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


def test_redirections() -> None:
    asked = Address("asked", 7)
    assert redirect_in("MOVED 5 a:1", asked) == Redirect(True, 5, Address("a", 1))
    assert redirect_in("ASK 5 ::1:1", asked) == Redirect(False, 5, Address("::1", 1))
    assert redirect_in("MOVED 5 :1", asked) == Redirect(True, 5, Address("asked", 1))
    assert redirect_in("MOVED 5 ?:1", asked) == Redirect(True, 5, Address("asked", 1))
    assert redirect_in("ERR MOVED 5 a:1", asked) is None


def test_commands() -> None:
    commands, name = Commands(b"p:", 1500), b"0123456789abcdef"
    assert commands.get(name) == b"*2\r\n$3\r\nGET\r\n$18\r\np:0123456789abcdef\r\n"
    assert commands.delete(name) == b"*2\r\n$3\r\nDEL\r\n$18\r\np:0123456789abcdef\r\n"
    assert commands.set(name, b"xyz") == (
        b"*5\r\n$3\r\nSET\r\n$18\r\np:0123456789abcdef\r\n$3\r\nxyz\r\n$2\r\nPX\r\n$4\r\n1500\r\n"
    )
    without = Commands(b"p:", 0)
    assert without.set(name, b"x").startswith(b"*3\r\n")
    assert without.set(name, b"x").endswith(b"$1\r\nx\r\n")
