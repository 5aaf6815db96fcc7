# SPDX-License-Identifier: BSD-3-Clause
"""A guest's balloon, through QEMU's monitor."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from preswapd.errors import RefusedError
from preswapd.qmp import CommandFailedError, Monitor, MonitorError

OPTION = "-device virtio-balloon-pci,deflate-on-oom=on,free-page-reporting=on"
KIND = "child<virtio-balloon"
INTERVAL, STATS = "guest-stats-polling-interval", "guest-stats"
# A guest whose driver has statistics sends them at once.
STATS_SECONDS = 3.0
POLL_SECONDS = 0.1
# What a guest does not tell.
UNKNOWN = (1 << 64) - 1


class GuestStats(NamedTuple):
    """What the guest says of itself; in bytes."""

    available: int | None = None  # without swapping
    swapped_in: int | None = None  # from any of its disks


class Balloon:
    """RefusedError where this QEMU has none."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        path = next(self.paths(), None)
        if path is None:
            raise RefusedError(
                "this QEMU has no virtio-balloon device, so that its guest cannot give memory back:"
                f" start it with {OPTION}"
            )
        self.path = path
        self.has()

    def paths(self) -> Iterator[str]:
        for place in ("/machine/peripheral", "/machine/peripheral-anon"):
            for device in self.monitor.execute("qom-list", path=place):
                if device["type"].startswith(KIND):
                    yield f"{place}/{device['name']}"

    def has(self) -> int:
        """What the guest has now."""
        try:
            return int(self.monitor.execute("query-balloon")["actual"])
        except CommandFailedError as error:
            raise RefusedError(f"its balloon cannot be used: {error}") from None

    def whole(self) -> int:
        """What it has with an empty balloon."""
        found = self.monitor.execute("query-memory-size-summary")
        return int(found["base-memory"] + found.get("plugged-memory", 0))

    def leave(self, size: int) -> None:
        """The guest is to have so much; it follows as fast as it can."""
        self.monitor.execute("balloon", value=size)

    @property
    def gives_back(self) -> bool:
        """Whether the guest takes memory out of it before it kills a program for want of some."""
        return bool(self.get("deflate-on-oom"))

    def state(self) -> str:
        """What the virtual machine does: "running", else why it does not."""
        return str(self.monitor.execute("query-status")["status"])

    # --- what the guest says ---

    @contextmanager
    def asked_for_stats(self) -> Iterator[None]:
        """The guest sends them each second inside; those who ask already are left alone."""
        before = self.get(INTERVAL)
        if not before:
            self.set(INTERVAL, 1)
        try:
            yield
        finally:
            if not before:
                with suppress(MonitorError):  # QEMU may be gone
                    self.set(INTERVAL, 0)

    def stats(self) -> GuestStats:
        """What it sent last; nothing of what it never sent."""
        answer = self.get(STATS) or {}
        if not answer.get("last-update"):
            return GuestStats()
        found = {name: value for name, value in answer["stats"].items() if 0 <= value < UNKNOWN}
        return GuestStats(found.get("stat-available-memory"), found.get("stat-swap-in"))

    def first_stats(self) -> GuestStats:
        """Waits for them a moment: a guest without the driver sends none."""
        deadline = time.monotonic() + STATS_SECONDS
        while not (found := self.stats()).available and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return found

    def get(self, name: str) -> Any:
        try:
            return self.monitor.execute("qom-get", path=self.path, property=name)
        except CommandFailedError:  # a QEMU, or a kind of balloon, without it
            return None

    def set(self, name: str, value: object) -> None:
        with suppress(CommandFailedError):
            self.monitor.execute("qom-set", path=self.path, property=name, value=value)
