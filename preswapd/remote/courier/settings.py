# SPDX-License-Identifier: BSD-3-Clause
"""What the server says first, as one JSON object: which store, and how patient to be with it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preswapd.errors import RefusedError
from preswapd.host.secret_files import read_secret
from preswapd.remote.courier.addresses import StoreUrl, UrlError, parse
from preswapd.version import VERSION

DEFAULT_PREFIX = "preswapd:"
PROBE_SECONDS = 10.0
# The server says the first six; the others are for tests.
KNOWN = {"version", "url", "password_file", "tls", "ttl_s", "timeout_ms", "prefix", "probe_s"}


class SettingsError(Exception):
    """They cannot be used."""


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files; None: the system's authorities, no certificate of our own."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True)
class Settings:
    store: StoreUrl
    # How long a stored page stays, in milliseconds; 0: until the store needs room.
    ttl_ms: int
    # How long a get may take before it is a failure of its node.
    timeout: float
    prefix: bytes
    tls: Tls
    password_file: Path | None
    # How long a node that is away is left alone between two probes, and one that is there between
    # two looks at how it is.
    probe: float

    def read_password(self) -> str | None:
        """As the file says now: it may be mended while a store is away.  RefusedError."""
        if self.password_file is None:
            return None
        try:
            secret = read_secret(self.password_file)
        except RefusedError as error:
            raise RefusedError(f"password-file {error}") from None
        # What is no UTF-8 is read as Python reads file names.
        return secret.decode("utf-8", "surrogateescape").rstrip("\r\n")


def read_settings(text: str) -> Settings:
    try:
        given = json.loads(text)
        if not isinstance(given, dict):
            raise SettingsError("settings are an object")
        # A server goes on with what it has loaded while another version takes the files' place.
        if (servers := given.get("version", VERSION)) != VERSION:
            raise SettingsError(
                f"this is version {VERSION} and the server is {servers}: restart the server"
            )
        if not given.keys() <= KNOWN:
            raise SettingsError(f"settings are an object of {', '.join(sorted(KNOWN))}")
        return from_object(given)
    except (KeyError, TypeError, ValueError) as error:
        what = "url" if isinstance(error, UrlError) else "settings"
        raise SettingsError(f"{what}: {error}") from None


def from_object(given: dict[str, Any]) -> Settings:
    store = parse(given["url"])
    password_file = given.get("password_file")
    settings = Settings(
        store,
        ttl_ms=int(given.get("ttl_s") or 0) * 1000,
        timeout=float(given["timeout_ms"]) / 1000,
        prefix=str(given.get("prefix", DEFAULT_PREFIX)).encode(),
        tls=Tls(**(given.get("tls") or {})),
        password_file=None if password_file is None else Path(password_file),
        probe=float(given.get("probe_s", PROBE_SECONDS)),
    )
    if settings.timeout <= 0 or settings.probe <= 0 or settings.ttl_ms < 0:
        raise SettingsError("settings: times are positive")
    return settings
