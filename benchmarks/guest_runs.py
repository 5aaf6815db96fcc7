# SPDX-License-Identifier: BSD-3-Clause
"""Guests with so much memory, worked in turn: one job in one guest is one run."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from benchmarks.guest_jobs import GuestJob, Served, served
from benchmarks.guest_swaps import Budget, CannotError, Place, Preswapd, Swapping
from benchmarks.host_usage import Peak, cpu_seconds, disk_bytes
from preswapd.guest.faults import GuestError
from preswapd.guest.readings import swap_traffic

JOB_SECONDS = 300.0


@dataclass(frozen=True)
class Run:
    """Sizes in bytes, times in seconds, latency in microseconds, swap traffic in pages.

    `disk_*` is what the host's disk did meanwhile, whoever asked; None where that cannot be told.
    `host_memory` is the peak of QEMU, its server, and the pool or page cache beside them.
    """

    percent: int
    swap: str
    job: str
    seconds: float
    swapped_in: int
    swapped_out: int
    disk_read: int | None
    disk_written: int | None
    qemu_cpu: float
    server_cpu: float
    host_memory: int
    requests_per_second: float | None = None
    p50: float | None = None
    p99: float | None = None


class WrongResultError(Exception):
    """A job came to another result than on the host: the guest's memory is damaged."""


class Point:
    """The guests of one amount of memory, all there at once, to share the machine's moods.

    One that cannot be had or fails is left out from then on, and `left_out` says why.
    """

    def __init__(
        self,
        place: Place,
        percent: int,
        memory: int,
        kinds: Sequence[type[Swapping]],
        progress: Callable[[str], None],
    ) -> None:
        self.place = place
        self.percent = percent
        self.memory = memory
        self.kinds = list(kinds)
        self.progress = progress
        self.left_out: dict[str, str] = {}
        self.budget = Budget()
        self.guests: dict[type[Swapping], Swapping] = {}
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def round(self, which: str) -> list[Run]:
        """preswapd comes first: the others get as much memory of the host as it took."""
        runs = []
        for kind in tuple(self.kinds):
            text = f"guests: {self.percent} % of memory, round {which}, {kind.name}"
            self.progress(text)
            try:
                swapping = self.booted(kind)
                swapping.before_round(self.budget)
                for job in self.place.material.jobs:
                    self.progress(f"{text}, {job.name}")
                    runs.append(self.run(swapping, job))
            except (CannotError, GuestError) as error:
                self.kinds.remove(kind)
                self.left_out[kind.name] = str(error)
        return runs

    def booted(self, kind: type[Swapping]) -> Swapping:
        if kind not in self.guests:
            made = kind(self.place, self.memory, self.budget)
            self.guests[kind] = self.stack.enter_context(made)
        return self.guests[kind]

    def run(self, swapping: Swapping, job: GuestJob) -> Run:
        guest = swapping.guest
        guest.run("sync; echo 3 >/proc/sys/vm/drop_caches")
        traffic = swap_traffic(guest.vmstat())
        disk = disk_bytes(self.place.disk)
        qemu, server = cpu_seconds(guest.pid), swapping.server_cpu()
        with Peak(swapping.host_memory) as peak:
            begun = time.monotonic()
            output = guest.run(job.command, JOB_SECONDS).output
            seconds = time.monotonic() - begun
        figures = checked(job, output)
        now = swap_traffic(guest.vmstat())
        disk_now = disk_bytes(self.place.disk)
        if isinstance(swapping, Preswapd) and swapping.codec == "lz4":
            self.budget = Budget(
                max(self.budget.qemu, peak.parts[0]), max(self.budget.pool, peak.parts[1])
            )
        return Run(
            self.percent,
            swapping.name,
            job.name,
            seconds,
            now.swapped_in - traffic.swapped_in,
            now.swapped_out - traffic.swapped_out,
            disk_now[0] - disk[0] if disk and disk_now else None,
            disk_now[1] - disk[1] if disk and disk_now else None,
            cpu_seconds(guest.pid) - qemu,
            swapping.server_cpu() - server,
            peak.total,
            *((figures.rate, figures.p50, figures.p99) if figures else ()),
        )


def checked(job: GuestJob, output: str) -> Served | None:
    """The store's figures; WrongResultError unless the job came to what it must come to."""
    if job.expected is not None:
        if output != job.expected:
            raise WrongResultError(f"{job.name}: {output!r} instead of {job.expected!r}")
        return None
    return served(output.splitlines()[-1])
