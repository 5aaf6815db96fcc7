# SPDX-License-Identifier: BSD-3-Clause
"""A guest that swaps to a real server: its disks, its load, and what both sides say."""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import Guest, Hardware, Job, Software
from preswapd.guest.memory import memory_leaving
from preswapd.units import PAGE_SIZE
from tests.running import GUEST_PATIENCE, RunningServer, wait_until

MIB = 1 << 20
AVAILABLE = 19 * MIB
FILES = 36  # of a MiB each

SUMS = "/run/sums"
# Reads every byte and writes every byte again, until told to stop; the first wrong one ends it.
LOAD = f"""
while [ ! -e /run/stop ]; do
  sha256sum -c -s {SUMS} || exit 1
  for n in $(seq 0 {FILES - 1}); do
    dd if=/dev/vda of=/files/$n bs=1M count=1 skip=$n conv=notrunc 2>/dev/null || exit 2
  done
done
sha256sum -c -s {SUMS}
"""


def pages(number: int) -> bytes:
    """A MiB of pages that LZ4 makes a third of; some are random, some of one byte."""
    source = random.Random(number)
    made = []
    for page in range(MIB // PAGE_SIZE):
        kind = page % 16
        if kind == 0:
            made.append(source.randbytes(PAGE_SIZE))
        elif kind == 1:
            made.append(bytes([number]) * PAGE_SIZE)
        else:
            made.append((source.randbytes(1000) * 5)[:PAGE_SIZE])
    return b"".join(made)


class SwappingGuest(Guest):
    """A guest with the server's devices as its disks; files for a tmpfs lie on its /dev/vda."""

    def __init__(
        self,
        server: RunningServer,
        kernel: Kernel,
        cache: Path,
        folder: Path,
        *,
        hardware: Sequence[str] | None = None,
    ) -> None:
        """`hardware` takes the place of the disks."""
        self.server = server
        files = [pages(number) for number in range(FILES)]
        material = folder / "material"
        material.write_bytes(b"".join(files))
        sums = [f"{hashlib.sha256(data).hexdigest()}  /files/{n}\n" for n, data in enumerate(files)]
        super().__init__(
            Hardware(
                memory_leaving(AVAILABLE, kernel, cache),
                disks=disks(server) if hardware is None else hardware,
                material=material,
            ),
            Software(kernel, files={SUMS: "".join(sums).encode()}),
            cache,
            life=400,
        )

    def fill(self) -> None:
        """More files than memory."""
        self.start_filling().wait(GUEST_PATIENCE)

    def start_filling(self) -> Job:
        self.run("mkdir /files && mount -t tmpfs -o size=1G none /files")
        copy = "dd if=/dev/vda of=/files/$n bs=1M count=1 skip=$n 2>/dev/null || exit 1"
        return self.start("fill", f"for n in $(seq 0 {FILES - 1}); do {copy}; done")

    def check_files(self) -> None:
        """Every byte of them."""
        self.start("check", f"sha256sum -c -s {SUMS}").wait(GUEST_PATIENCE)

    def start_load(self) -> Job:
        """Swapped in and out without end, each round checked."""
        return self.start("load", LOAD)

    def stop_load(self, load: Job) -> None:
        """Ends its round; CommandError when a byte was wrong."""
        self.run("touch /run/stop")
        load.wait(GUEST_PATIENCE)

    def used(self) -> int:
        """Pages of swap space in use, by /proc/swaps."""
        return sum(area.used for area in self.swaps()) // PAGE_SIZE

    def assert_saw_nothing(self) -> None:
        """No I/O error, neither in the guest's log nor in QEMU."""
        assert self.troubles() == []
        assert self.stops() == []


def disks(server: RunningServer) -> list[str]:
    """What qemu-args prints for each device."""
    return [
        argument
        for name in server.devices
        for argument in json.loads(server.ctl("--json", "qemu-args", name).stdout)
    ]


def device(server: RunningServer, name: str = "g1") -> dict[str, Any]:
    counters: dict[str, Any] = server.json_stats()["devices"][name]
    return counters


def glance(server: RunningServer, name: str = "g1") -> dict[str, Any]:
    """The same without a process, for who waits and looks again and again."""
    return dict(server.client.stats()["devices"][name])


def at_rest(guest: SwappingGuest) -> tuple[dict[str, int], dict[str, Any]]:
    """/proc/vmstat and the device's counters at a moment when no page moves."""

    def both() -> tuple[int, int, dict[str, int], dict[str, Any]]:
        vmstat = guest.vmstat()
        return vmstat["pswpin"], vmstat["pswpout"], vmstat, device(guest.server)

    seen = [both()]

    def rests() -> bool:
        seen.append(both())
        before, now = seen[-2:]
        return before[:2] == now[:2] and before[3]["loads"] == now[3]["loads"]

    wait_until(rests, "swap traffic to rest")
    return seen[-1][2:]
