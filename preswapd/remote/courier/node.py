# SPDX-License-Identifier: BSD-3-Clause
"""One server of a store: its two connections, or why it has none."""

import re
from typing import Any

from preswapd.remote.courier.addresses import Address
from preswapd.remote.courier.link import Link

# In a row; then it is left alone for a while, and everything asked of it is answered at once.
MOST_FAILURES = 3
FIRST_PAUSE = 0.1

FIGURE = re.compile(
    "^(redis_version|valkey_version|server_name|maxmemory|used_memory|maxmemory_policy|evicted_keys)"
    r":(.*?)\r?$",
    re.M,
)
# Of an error: it is logged and shown, in lines.  What is wrong is said first, and some stores
# explain a lot behind it.
MOST_SAID = 200
# Of 64 bits; Python makes none of thousands of digits.
NUMBER = re.compile("[0-9]{1,20}")


class Node:
    """What is known of it, and when it is tried next."""

    def __init__(self, address: Address, now: float, longest_pause: float) -> None:
        self.address = address
        # For gets; for what nobody waits for.
        self.reads: Link | None = None
        self.writes: Link | None = None
        self.is_connecting = False
        self.retry_at = now
        # Until when it is kept though it owns no slots.
        self.wanted_until = now
        self.failures = 0
        # Why it is away; why it takes no sets.
        self.error: str | None = None
        self.refusal: str | None = None
        self.figures: dict[str, str] = {}
        self._pause = FIRST_PAUSE
        self._longest_pause = longest_pause
        self._next_lateness = now

    @property
    def is_up(self) -> bool:
        return self.reads is not None

    def came_up(self, reads: Link, writes: Link) -> None:
        self.reads, self.writes = reads, writes
        self.error = self.refusal = None
        self.failures = 0

    def went_down(self, why: str, now: float) -> None:
        """It is tried again after pauses that grow: a store that was started anew is soon back."""
        self.reads = self.writes = None
        self.error = why
        self.retry_at = now + self._pause
        self._pause = min(self._pause * 2, self._longest_pause)

    def answered(self, in_time: bool) -> None:
        """A get was."""
        if in_time:
            self.failures = 0
            self.error = None
            self._pause = FIRST_PAUSE

    def failed(self, why: str) -> bool:
        """Whether that was once too often."""
        self.error = why
        self.failures += 1
        return self.failures >= MOST_FAILURES

    def is_too_late(self, now: float) -> str | None:
        """Looked at often: why it is given up, if it is."""
        if self.reads and self.reads.is_late and now >= self._next_lateness:
            self._next_lateness = now + self.reads.patience
            if self.failed(late(self.reads.patience)):
                return self.error
        if self.writes and self.writes.is_late:
            return late(self.writes.patience)
        return None

    def take_info(self, text: str) -> None:
        """What INFO says."""
        self.figures = dict(FIGURE.findall(text))

    def as_json(self) -> dict[str, Any]:
        known = self.figures
        seconds = self.reads.latency if self.reads else 0.0
        is_valkey = known.get("server_name") == "valkey"
        name, version = ("valkey", "valkey_version") if is_valkey else ("redis", "redis_version")
        return {
            "address": str(self.address),
            "up": self.is_up,
            "error": in_short(self.error or self.refusal),
            # Nothing was answered yet.
            "latency_us": round(seconds * 1e6) or None,
            "server": name if known else None,
            "version": known.get(version),
            "maxmemory": number(known.get("maxmemory")),
            "used_memory": number(known.get("used_memory")),
            "policy": known.get("maxmemory_policy"),
            "evicted_keys": number(known.get("evicted_keys")),
        }


def late(seconds: float) -> str:
    return f"it does not answer within {seconds * 1000:g} ms"


def in_short(error: str | None) -> str | None:
    return error if error is None or len(error) <= MOST_SAID else f"{error[:MOST_SAID]}…"


def number(text: str | None) -> int | None:
    return int(text) if text and NUMBER.fullmatch(text) else None
