# SPDX-License-Identifier: BSD-3-Clause
"""How a server was started last, left in its runtime directory for when nobody answers there.

It is no promise and no state: the server never reads it, and does without it where there is no
room.  `preswapctl` finds in it where the pages are and what starts the server again.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

# Said for one start, and not to be said again.
ONCE = ("--discard-state", "--accept-moved", "--sync-and-exit")


class LastStart(NamedTuple):
    """`command` runs in `directory`; `unit` is the systemd unit that ran it, "" without one."""

    command: tuple[str, ...]
    directory: str
    unit: str
    shm_dir: str

    def write(self, path: Path) -> None:
        with suppress(OSError):
            # What a start before this one left would name another command.
            path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(path, flags, 0o600), "w") as file:
                json.dump(self._asdict(), file)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None where there is none, or a part of one."""
        try:
            found = json.loads(path.read_text())
            command = tuple(map(str, found["command"]))
            return cls(command, *(str(found[name]) for name in ("directory", "unit", "shm_dir")))
        except (OSError, ValueError, KeyError, TypeError):
            return None
