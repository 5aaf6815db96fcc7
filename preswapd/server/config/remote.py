# SPDX-License-Identifier: BSD-3-Clause
"""The store of the remote tier: its settings only make sense together."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from preswapd.errors import UsageError
from preswapd.remote.settings import (
    DEFAULT_MAX,
    DEFAULT_TIMEOUT,
    DEFAULT_TTL,
    KEY_FILE,
    StoreSettings,
)
from preswapd.server.config.reach import before, whole

TABLE = "remote"
FILES = ("password_file", "key_file", "image_key_file", "ca", "cert", "key")
OF_TLS = ("ca", "cert", "key")
WITH_TLS = "rediss://"

Place = Callable[[tuple[str, ...]], str | None]


def check_remote(values: dict[str, Any], place: Place, state_dir: Path) -> None:
    """Fills in what nobody said, and makes paths absolute; UsageError where settings do not fit.

    `place` says where a file has a setting, which is None where no file has it.
    """
    own = said(values)
    url = own.get("url")
    if url is None:
        for name in own:
            raise wrong(
                place, name, "without a url it does nothing: say url in [remote], or --remote-url"
            )
        return
    if not url.startswith(WITH_TLS):
        for name in OF_TLS:
            if name in own:
                raise wrong(place, name, f"it is for TLS, and the url does not begin {WITH_TLS}")
    for one, other in (("cert", "key"), ("key", "cert")):
        if one in own and other not in own:
            raise wrong(place, one, f"it needs {other} in [remote], or --remote-{other}")
    defaults = {
        "key_file": state_dir / KEY_FILE,
        "timeout": DEFAULT_TIMEOUT,
        "max": DEFAULT_MAX,
        "ttl": DEFAULT_TTL,
    }
    for name, value in {**defaults, **own}.items():
        values[f"{TABLE}_{name}"] = whole(value) if name in FILES else value


def said(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of the table's settings, those that have a value."""
    names = (field.name for field in fields(StoreSettings))
    found = {name: values.get(f"{TABLE}_{name}") for name in names}
    return {name: value for name, value in found.items() if value is not None}


def wrong(place: Place, name: str, text: str) -> UsageError:
    key = name.replace("_", "-")
    return UsageError(f"{before(place((TABLE, key)))}{TABLE}-{key}: {text}")
