# SPDX-License-Identifier: BSD-3-Clause
"""doctor's check that the units' user can read what it needs, whatever umask it was made with."""

import grp
import os
import pwd
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from preswapd.cli.doctor.finding import FIX, Finding
from preswapd.cli.doctor.units import TEMPLATE, settings_of, units_installed

READ, ENTER = 4, 1


def check_readable(root: Path) -> list[Finding]:
    """Nothing where all is well, as the units that run say so themselves."""
    if not units_installed(root):
        return []
    config = settings_of(root, TEMPLATE)
    program = config.get("Service", "ExecStart", fallback="").partition(" ")[0]
    try:
        user = pwd.getpwnam(config.get("Service", "User", fallback="root"))
    except KeyError:
        return []
    if user.pw_uid == 0 or not program.startswith("/"):
        return []
    own = root / program.lstrip("/")
    needed = (own, *own.parents[1].glob("lib/python3*/site-packages/preswapd/__main__.py"))
    files = (*needed, *configuration(root / "etc/preswapd"))
    return list(findings(root, files, user.pw_uid, groups_of(user)))


def groups_of(user: pwd.struct_passwd) -> set[int]:
    others = (group.gr_gid for group in grp.getgrall() if user.pw_name in group.gr_mem)
    return {user.pw_gid, *others}


def configuration(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.glob("*.toml"))
        yield from sorted(folder.glob("*.toml.d/*.toml"))
    except OSError:
        return


def findings(
    root: Path, files: Iterable[Path], user: int, groups: Collection[int]
) -> Iterator[Finding]:
    closed = dict.fromkeys(
        found for path in files if (found := first_closed(root, path, user, groups))
    )
    for path in closed:
        yield Finding(
            FIX, TEMPLATE, f"user {user}, who serves, cannot read {path}", f"chmod -R a+rX {path}"
        )


def first_closed(root: Path, path: Path, user: int, groups: Collection[int]) -> Path | None:
    """The file, or the first folder above it, that keeps the user out; None where it is read."""
    folders = [root / part for part in reversed(path.relative_to(root).parents[:-1])]
    for each, wanted in (*((folder, ENTER) for folder in folders), (path, READ)):
        try:
            status = each.stat()
        except OSError:
            return None
        if not may(status, wanted, user, groups):
            return each
    return None


def may(status: os.stat_result, wanted: int, user: int, groups: Collection[int]) -> bool:
    shift = 6 if status.st_uid == user else 3 if status.st_gid in groups else 0
    return bool(status.st_mode >> shift & wanted)
