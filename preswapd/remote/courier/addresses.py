# SPDX-License-Identifier: BSD-3-Clause
"""Where a store is: redis://[USER@]HOST[:PORT][,HOST[:PORT]...][/DATABASE], rediss:// with TLS,
unix://PATH.  The configuration takes no other (check_store() in preswapd/api/kinds.py)."""

import re
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

DEFAULT_PORT = 6379
# By hand: of several hosts some of Python's take an IPv6 address for a mistake.
URL = re.compile(r"(redis|rediss|unix)://(?:([^/]*)@)?([^/@]*)(/.*)?", re.DOTALL)


class UrlError(ValueError):
    """Not an address of a store."""


class Address(NamedTuple):
    """Of one node; port 0: a Unix socket's path."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class StoreUrl:
    """An address of a store, as it is written and taken apart."""

    written: str
    addresses: tuple[Address, ...]
    secure: bool
    username: str | None
    database: int


def parse(url: str) -> StoreUrl:
    found = URL.fullmatch(url)
    if found is None:
        raise UrlError("a store's URL begins with redis://, rediss:// or unix://")
    scheme, user, hosts, path = found.groups(default="")
    if "?" in url or "#" in url:
        raise UrlError("a store's URL has nothing behind its path")
    if ":" in user:
        raise UrlError("a password in a store's URL would be shown: it is read from a file")
    if scheme == "unix":
        if hosts or not path:
            raise UrlError("a Unix socket's URL is unix:///PATH")
        addresses: tuple[Address, ...] = (Address(unquote(path), 0),)
        database = 0
    else:
        addresses = tuple(address_of(host) for host in hosts.split(","))
        database = database_of(path)
    return StoreUrl(url, addresses, scheme == "rediss", unquote(user) or None, database)


def address_of(text: str) -> Address:
    """HOST, HOST:PORT, [IPV6] or [IPV6]:PORT."""
    try:
        parts = urlsplit(f"//{text}")
        port = DEFAULT_PORT if parts.port is None else parts.port
    except ValueError:
        raise UrlError(f"not a host and port: {text}") from None
    if not parts.hostname or not port:
        raise UrlError(f"not a host and port: {text or 'nothing'}")
    return Address(unquote(parts.hostname), port)


def database_of(path: str) -> int:
    text = path.strip("/")
    if text and not (text.isascii() and text.isdecimal()):
        raise UrlError(f"not the number of a database: {text}")
    return int(text or "0")
