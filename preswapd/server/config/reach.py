# SPDX-License-Identifier: BSD-3-Clause
"""Who can reach the server: `listen` and TLS, which only make sense together."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from preswapd.api.kinds import PSK, X509, is_loopback
from preswapd.errors import UsageError

# By the mode, the parameter of the setting that says where the keys are.
WHERE = {X509: "tls_certificates", PSK: "tls_psk_file"}


class TlsKeys(NamedTuple):
    """What TLS clients are let in by."""

    mode: str
    path: Path  # a directory with x509, a file with psk


def check_reach(values: dict[str, Any], place: Callable[[tuple[str, ...]], str | None]) -> None:
    """Makes the path of the keys that count absolute; UsageError where settings do not fit.

    `place` says where a file has a setting, which is None where no file has it.
    """
    mode, listen = values.get("tls_mode"), values.get("listen")
    for one, parameter in WHERE.items():
        key = parameter.removeprefix("tls_").replace("_", "-")
        if parameter in values and mode is None:
            at = before(place(("tls", key)))
            raise UsageError(f'{at}without a mode {key} does nothing: say mode = "{one}" in [tls]')
        if mode == one and parameter not in values:
            at = before(place(("tls", "mode")))
            raise UsageError(f"{at}the mode {mode} needs {key} in [tls], or --tls-{key}")
    if mode:
        values[WHERE[mode]] = whole(values[WHERE[mode]])
    elif listen is not None and not is_loopback(listen):
        raise UsageError(
            f"{before(place(('listen',)))}listen: {listen!r} can be reached from other hosts, which"
            " needs TLS: without tls-mode only loopback addresses are served (127.0.0.1:PORT)"
        )


def before(place: str | None) -> str:
    return f"{place}: " if place else ""


def whole(path: Path) -> Path:
    try:
        return path.absolute()
    except FileNotFoundError:
        raise UsageError("the working directory is gone: give an absolute path") from None
