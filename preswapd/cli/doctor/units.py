# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of the systemd units that are installed here."""

import configparser
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote, split
from typing import NamedTuple

from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.typed import as_root
from preswapd.host.logind import YES

# A unit in an earlier one hides those of the same name in later ones.
FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
)
# Ours, behind most others.
DROP_IN = "zz-preswapd.conf"
TEMPLATE = "preswapd@.service"
# The units that it comes with, and what is without them.
BESIDE = {
    "preswapd@.socket": "nothing listens while the server restarts",
    "preswapd-sync@.service": "a reboot of the host loses what guests have in memory",
}
# QEMU tries again after 1, 2, 4 seconds and so on: a pause of this length costs the guest nothing.
LONGEST_PAUSE = 1.0
SPANS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "": 1.0, "min": 60.0, "m": 60.0}


class Rule(NamedTuple):
    """A setting that the unit must have, and what happens where it has another value."""

    section: str
    key: str
    default: str  # systemd's
    is_right: Callable[[str], bool]
    wanted: str
    otherwise: str


RULES = (
    Rule(
        "Service",
        "DynamicUser",
        "no",
        lambda value: value.lower() not in YES,
        "no",
        "systemd deletes the guests' pages at every stop",
    ),
    Rule(
        "Service",
        "Restart",
        "no",
        lambda value: value == "always",
        "always",
        "a crash leaves the guest without its swap disk",
    ),
    Rule(
        "Service",
        "RestartSec",
        "100ms",
        lambda value: seconds(value) <= LONGEST_PAUSE,
        "0.1",
        "the guest waits that long after a crash",
    ),
    Rule(
        "Unit",
        "StartLimitIntervalSec",
        "10s",
        lambda value: seconds(value) == 0,
        "0",
        "a few crashes end the attempts to restart",
    ),
    Rule(
        "Service",
        "TimeoutStopSec",
        "90s",
        lambda value: value == "infinity",
        "infinity",
        "a stop that waits longer for a slow disk ends in a kill",
    ),
    Rule(
        "Service",
        "MemorySwapMax",
        "infinity",
        lambda value: value == "0",
        "0",
        "the host may swap out what the guests have swapped out already",
    ),
)


def units_installed(root: Path) -> bool:
    return bool(files_of(root, TEMPLATE))


def is_installed(root: Path, unit: str) -> bool:
    """A unit, or the template that it is made from."""
    name, at, rest = unit.partition("@")
    template = f"{name}@.{rest.rpartition('.')[2]}" if at else unit
    return bool(files_of(root, unit) or files_of(root, template))


def check_units(root: Path) -> list[Finding]:
    if not units_installed(root):
        return []
    own = sorted({path.parent.name for path in drop_ins(root, "preswapd@*.service.d")})
    units = [name.removesuffix(".d") for name in own if name != f"{TEMPLATE}.d"]
    findings = []
    for unit in [TEMPLATE, *units]:
        wrong = list(check_settings(unit, settings_of(root, unit), last_drop_in(root, unit)))
        findings += wrong or [Finding(OK, unit, "restarts at once, and stops without a time limit")]
        findings += check_sync(root, unit)
    for name, otherwise in BESIDE.items():
        if not files_of(root, name):
            findings.append(
                Finding(
                    NOTE,
                    TEMPLATE,
                    f"{name} is missing: {otherwise}",
                    "install preswapd again, which brings it",
                )
            )
    return findings


def check_settings(
    unit: str, config: configparser.ConfigParser, drop_in: Path
) -> Iterator[Finding]:
    for rule in RULES:
        value = config.get(rule.section, rule.key, fallback="") or rule.default
        if not rule.is_right(value):
            yield Finding(
                FIX,
                unit,
                f"{rule.key}={value}: {rule.otherwise}",
                "a drop-in puts it right",
                add(drop_in, rule.section, f"{rule.key}={rule.wanted}"),
            )


def check_sync(root: Path, server: str) -> Iterator[Finding]:
    """Whether it may write where the server does, which may have its pages there.

    Of directories: a file is an image's.
    """
    sync = server.replace("@", "-sync@", 1)
    if not is_installed(root, sync):
        return
    for directory in sorted(writable(root, server) - writable(root, sync)):
        if (root / directory.lstrip("/")).is_dir():
            yield Finding(
                NOTE,
                sync,
                f"it may not write to {directory}, as {server} may: with pages there a reboot loses"
                " what guests have in memory",
                "a drop-in lets it",
                add(last_drop_in(root, sync), "Service", f"ReadWritePaths={quote(directory)}"),
            )


def add(drop_in: Path, section: str, setting: str) -> str:
    """The command that does it."""
    folder, lines = quote(str(drop_in.parent)), quote(f"[{section}]") + " " + quote(setting)
    return as_root(
        f"mkdir -p {folder} && printf '\\n%s\\n%s\\n' {lines} >>{quote(str(drop_in))}"
        " && systemctl daemon-reload"
    )


def last_drop_in(root: Path, unit: str) -> Path:
    """Where what is written counts: systemd reads drop-ins in the order of their names."""
    name = DROP_IN
    while any(path.name > name for path in drop_ins_of(root, unit)):
        name = f"z{name}"
    return Path("/", FOLDERS[0], f"{unit}.d", name)


def drop_ins_of(root: Path, unit: str) -> list[Path]:
    """The template's and the unit's own."""
    names = dict.fromkeys([f"{template_of(unit)}.d", f"{unit}.d"])
    return [path for name in names for path in drop_ins(root, name)]


def template_of(unit: str) -> str:
    return f"{unit.partition('@')[0]}@.service"


def texts_of(root: Path, unit: str) -> Iterator[str]:
    """As systemd reads it: the template, its drop-ins, the instance's own drop-ins."""
    for path in [*files_of(root, template_of(unit))[:1], *drop_ins_of(root, unit)]:
        with suppress(OSError):
            yield path.read_text(errors="replace")


def settings_of(root: Path, unit: str) -> configparser.ConfigParser:
    config = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    for text in texts_of(root, unit):
        with suppress(configparser.Error):
            config.read_string(text)
    return config


def writable(root: Path, unit: str) -> set[str]:
    """What ReadWritePaths= names, which adds up; an empty one forgets those before it."""
    found: set[str] = set()
    for value in re.findall(r"^ReadWritePaths=(.*)$", "\n".join(texts_of(root, unit)), re.M):
        with suppress(ValueError):  # a quotation mark alone
            paths = {path.lstrip("-+") for path in split(value)}
            found = found | paths if paths else set()
    return found


def files_of(root: Path, name: str) -> list[Path]:
    return [path for folder in FOLDERS if (path := root / folder / name).is_file()]


def drop_ins(root: Path, pattern: str) -> list[Path]:
    found = (path for folder in FOLDERS for path in (root / folder).glob(f"{pattern}/*.conf"))
    return sorted(found, key=lambda path: path.name)


def seconds(span: str) -> float:
    """A time span of one unit, which is all that anyone writes here; others count as endless."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]*)", span.strip())
    if match is None or match[2] not in SPANS:
        return float("inf")
    return float(match[1]) * SPANS[match[2]]
