# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Sequence

from preswapd.tmem._tmem import Host

STATES: tuple[str, ...]

class Entry:
    """A device in the arena's table, as long as its host is open."""

    number: int
    name: str
    size: int
    type: int
    state: str
    token: int  # what the device's disk file bears too, 0: none yet
    quarantined: bool  # by an older release, which served none of its pages then
    def set_state(self, state: str) -> None:
        """One of STATES; a single store."""

    def set_token(self, token: int) -> None:
        """64 bits; a single store."""

    def lift_quarantine(self) -> None: ...

class Table:
    """The arena's table of devices."""

    def __init__(self, host: Host) -> None: ...
    def prepare(self) -> None:
        """Makes a fresh arena's table; OSError when there is no room for it."""

    def entries(self, name: str | None = None) -> list[Entry]:
        """Those in use, or only those of a name.  RefusedError: the table is damaged."""

    def add(self, name: str, size: int, state: str) -> Entry:
        """A new entry, with a type that was never used before.  OSError: no room."""

def recover(host: Host, pool: int, served: Sequence[Entry]) -> dict[str, int]:
    """Host.recover() that keeps the pages of these devices and drops all others."""
