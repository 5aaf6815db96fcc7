# SPDX-License-Identifier: BSD-3-Clause
"""Whether systemd's logind deletes a user's shared memory at logout (logind.conf(5), RemoveIPC)."""

import configparser
from pathlib import Path

RUNNING = Path("/run/systemd/seats")
FILES = ("/etc/systemd/logind.conf", "/run/systemd/logind.conf")
DROP_INS = (
    "/usr/lib/systemd/logind.conf.d",
    "/run/systemd/logind.conf.d",
    "/etc/systemd/logind.conf.d",
)
# systemd regards smaller numbers as a system's, unless it was built otherwise; it leaves theirs.
FIRST_ORDINARY_USER = 1000
# What systemd takes for a yes.
YES = {"yes", "y", "true", "t", "on", "1"}


def is_ordinary(user: int) -> bool:
    return user >= FIRST_ORDINARY_USER


def deletes_shared_memory_of(user: int) -> bool:
    return is_ordinary(user) and RUNNING.is_dir() and removes_ipc()


def removes_ipc() -> bool:
    """Its default is yes; of several drop-ins, the one with the last name counts."""
    drop_ins = (path for folder in DROP_INS for path in Path(folder).glob("*.conf"))
    value = "yes"
    for path in [*map(Path, FILES), *sorted(drop_ins, key=lambda path: path.name)]:
        config = configparser.ConfigParser(strict=False, interpolation=None)
        try:
            config.read(path)
        except (configparser.Error, UnicodeDecodeError):
            continue
        value = config.get("Login", "RemoveIPC", fallback=value)
    return value.strip().lower() in YES
