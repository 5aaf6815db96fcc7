# SPDX-License-Identifier: BSD-3-Clause
"""Page-ins of a real guest, which has memory for half of what its program uses: cold.c.

The guest measures them itself, from the touch of a page until the program goes on.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.guest_jobs import built
from benchmarks.guests import BASE
from benchmarks.remote.faults import Seen
from benchmarks.remote.swapped import Swapped
from benchmarks.sections import Figures
from benchmarks.text import MIB
from preswapd.demo.server import ControlCommand
from preswapd.guest.kernel import default_cache, find_kernel
from preswapd.guest.machine import Guest, Hardware, Job, Software
from preswapd.guest.memory import memory_leaving

SOURCE = Path(__file__).with_name("cold.c")
COLD = "/bin/cold"
# As many pages are waited for at once.
THREADS = 16
LIFE_SECONDS = 1800.0
ANSWER_SECONDS = 120.0
POLL_SECONDS = 0.2
BEGIN_SECONDS = 0.3
# The guest's clock is read that often, and known to the half of the quickest answer.
CLOCK_READINGS = 8


class GuestReader:
    """A program reads so many MiB, for so many seconds."""

    def __init__(self, swapped: Swapped, guest: Guest, mib: int, seconds: float) -> None:
        self.swapped = swapped
        self.guest = guest
        self.mib = mib
        self.seconds = seconds
        self.command = f"exec {COLD} {mib} {THREADS} {seconds}"
        self.job: Job | None = None

    def fill(self) -> None:
        self.kill()
        self.swapped.use_store(True)
        self.swapped.thaw()
        self.job = self.guest.start("cold", self.command)
        self.wait_for("ready")
        self.swapped.move_out()

    def begin(self) -> None:
        assert self.job
        self.ahead = self.clock_ahead()
        # Its shell answers late once the program is at work.
        later = f"usleep {BEGIN_SECONDS * 1e6:.0f}; kill -CONT $(pidof cold)"
        self.guest.run(f": >{self.job.log}; ({later}) >/dev/null 2>&1 &")
        time.sleep(BEGIN_SECONDS)
        self.over = time.monotonic() + self.seconds

    def end(self) -> list[Seen]:
        # Who asks before that disturbs.
        time.sleep(max(self.over - time.monotonic(), 0))
        lines = self.wait_for("done")
        return [parsed(line, self.ahead) for line in lines[:-1]]

    def kill(self) -> None:
        if self.job:
            self.guest.run("kill -KILL $(pidof cold)")
        self.job = None

    def wait_for(self, word: str) -> list[str]:
        """What the program says, once its last line is that."""
        assert self.job
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.guest.run(f"tail -n 1 {self.job.log}").output.strip() != word:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the guest's program does not say {word!r}")
            time.sleep(POLL_SECONDS)
        return self.guest.read(self.job.log).splitlines()

    def clock_ahead(self) -> float:
        """Of this host's, in seconds."""
        readings = []
        for _ in range(CLOCK_READINGS):
            asked = time.time()
            seen = int(self.guest.run(COLD).output) / 1e9
            took = time.time() - asked
            readings.append((took, seen - asked - took / 2))
        return min(readings)[1]

    def describe(self) -> Figures:
        return {
            "mib": self.mib,
            "memory": self.guest.hardware.memory,
            "accelerator": self.guest.accelerator,
        }


def parsed(line: str, ahead: float) -> Seen:
    """When it began and how long it took, in ns, by a clock that is so many seconds ahead."""
    begun, took = map(int, line.split())
    return Seen(begun / 1e9 - ahead, took / 1000)


def title(figures: Figures) -> str:
    how = f"{figures['memory'] / MIB:.0f} MiB ({figures['accelerator']})"
    return f"Page-ins of {figures['mib']} MiB in a guest of {how}, {THREADS} threads,"


@contextmanager
def booted(swapped: Swapped, mib: int) -> Iterator[Guest]:
    """It swaps to the disk, and has memory for half of so much."""
    cache = default_cache()
    kernel = find_kernel(cache)
    name = swapped.serving.server.export
    with ControlCommand(swapped.serving.folder / "run", ("--json", "qemu-args", name)) as command:
        disks = json.loads(command.wait())
    hardware = Hardware(memory_leaving(BASE + mib * MIB // 2, kernel, cache), disks=disks)
    software = Software(kernel, files={COLD: built(SOURCE)})
    with Guest(hardware, software, cache, life=LIFE_SECONDS) as guest:
        guest.swapon(name)
        yield guest
