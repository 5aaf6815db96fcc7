# SPDX-License-Identifier: BSD-3-Clause
"""A guest whose memory says of each page what it must hold; it can move, be saved and hibernate.

Its process 1 and its commands never swap (still.sh), and `stamps` (stamps.c) lives on where a page
is an I/O error: with `report` such an error reaches the guest, as a signal to who reads the page.
Without it QEMU pauses the guest, as the options of qemu-args have it.
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preswapd.guest.faults import GuestTimeoutError
from preswapd.guest.initramfs import INIT
from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.memory import memory_leaving
from preswapd.units import PAGE_SIZE
from tests.guest.swapping import MIB
from tests.running import GUEST_PATIENCE, RunningServer, wait_for, wait_until

HERE = Path(__file__).parent
# More than half of what is stamped is swapped, as its cgroup may not have more memory.
STAMPED, MEMORY = 12, 6
PAGES = STAMPED * MIB // PAGE_SIZE
# A guest can hibernate if half of its memory is free; told a size for the image, it swaps no more
# than it has to before.
AVAILABLE = 160 * MIB
IMAGE = 500 * MIB
ENOUGH = 100  # pages, for a test to mean something

ASK, SAID = "/run/ask", "/run/said"
RESTING = "/dev/vda"
RESUME = "cat /sys/block/vda/dev >/sys/power/resume"
SWAPS = "/cgroup/swaps"
STAMPS = f"""
echo 0 >{SWAPS}/cgroup.procs
echo -1000 >/proc/self/oom_score_adj
exec /bin/stamps {STAMPED} <>{ASK} >{SAID}
"""


class Seen(NamedTuple):
    """A round of `stamps` over all of its pages."""

    order: str
    right: int
    failed: int
    zeros: int
    older: int
    wrong: int

    def assert_nothing_false(self) -> None:
        assert (self.zeros, self.older, self.wrong) == (0, 0, 0), self
        assert self.right + self.failed == PAGES


def compiled(folder: Path) -> bytes:
    program = folder / "stamps"
    if not program.exists():
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"]
        subprocess.run(["cc", *flags, "-o", program, HERE / "stamps.c"], check=True)
    return program.read_bytes()


def disk(server: RunningServer, bus: str, report: bool) -> list[str]:
    """As qemu-args prints it, but for what becomes of an I/O error with `report`."""
    printed = server.ctl("--json", "qemu-args", "--bus", bus, "g1").stdout
    options: list[str] = json.loads(printed)
    return [option.replace("rror=stop", "rror=report") for option in options] if report else options


class StampedGuest(Guest):
    """Booted, or `incoming`; it has another disk to hibernate to, if `rest` names a file.

    With `report` better on virtio-blk, as a guest tries what failed on a SCSI disk five times more.
    """

    def __init__(
        self,
        server: RunningServer,
        kernel: Kernel,
        cache: Path,
        folder: Path,
        *,
        bus: str = "scsi",
        report: bool = False,
        rest: Path | None = None,
        incoming: str = "",
        hardware: Sequence[str] | None = None,
    ) -> None:
        """`hardware` takes the place of the disk."""
        self.server = server
        files = {
            "/init": (HERE / "still.sh").read_bytes(),
            "/init.commands": INIT.read_bytes(),
            "/bin/stamps": compiled(folder),
        }
        drive = f"if=none,id=rest,file={rest},format=raw"
        resting = ["-drive", drive, "-device", "virtio-blk-pci,drive=rest"] if rest else []
        own = disk(server, bus, report) if hardware is None else hardware
        super().__init__(
            Hardware(memory_leaving(AVAILABLE, kernel, cache), disks=[*resting, *own]),
            Software(kernel, files=files),
            cache,
            life=400,
            incoming=incoming,
        )

    # --- its memory ---

    def fill(self) -> None:
        """Swap turned on by label, and more memory stamped than there is for it."""
        self.swapon("g1")
        self.run(f"mkdir {SWAPS} && echo {MEMORY}M >{SWAPS}/memory.max")
        self.run(f"mkfifo {ASK}; touch {SAID}")
        self.start("stamps", STAMPS)
        self.assert_all_right("wc")
        assert device_writes(self.server) > ENOUGH

    def order(self, orders: str) -> None:
        """Rounds of writes (w) and checks (c), one after the other."""
        self.run(f"printf {orders} >{ASK}")

    def order_soon(self, orders: str) -> None:
        """For one that may be paused before it could answer."""
        self.run(f"(sleep 1; printf {orders} >{ASK}) >/dev/null 2>&1 &")

    def seen(self) -> list[Seen]:
        """The rounds that have ended."""
        lines = self.run(f"cat {SAID}").output.splitlines()
        return [Seen(words[0], *map(int, words[1:])) for words in map(str.split, lines)]

    def rounds(self, orders: str) -> list[Seen]:
        """What came of these orders."""
        before = len(self.seen())
        self.order(orders)
        whole = before + len(orders)
        return wait_for(self.seen, lambda seen: len(seen) >= whole, 2 * GUEST_PATIENCE)[before:]

    def assert_all_right(self, orders: str) -> None:
        assert self.rounds(orders) == [Seen(order, PAGES, 0, 0, 0, 0) for order in orders]

    def assert_nothing_false(self, orders: str) -> list[Seen]:
        """Each page is right or an I/O error, and there are enough of both."""
        # Thousands of errors take minutes to say, and each would take its neighbours with it.
        self.run("dmesg -n 1; echo 0 >/proc/sys/vm/page-cluster")
        rounds = self.rounds(orders)
        for seen in rounds:
            seen.assert_nothing_false()
        print(rounds)  # for who measures
        assert rounds[0].failed > ENOUGH
        assert rounds[0].right > ENOUGH
        return rounds

    def swap_out(self) -> None:
        """All of what is stamped, as far as the kernel can."""
        self.run(f"echo {MEMORY}M >{SWAPS}/memory.reclaim", check=False)

    # --- QEMU ---

    def kinds(self) -> list[object]:
        return [event["event"] for event in self.stops()]

    def assert_pauses(self) -> None:
        """By an I/O error, and again when it goes on."""
        self._wait_for_stops(1)
        self.resume()
        self._wait_for_stops(2)
        assert {*self.kinds()} == {"BLOCK_IO_ERROR", "STOP"}
        assert "panic" not in self.console()

    def _wait_for_stops(self, number: int) -> None:
        wait_for(self.kinds, lambda kinds: kinds.count("STOP") >= number, GUEST_PATIENCE)

    # --- hibernation, to the first disk of virtio-blk ---

    def hibernate(self) -> None:
        """QEMU has ended then."""
        if RESTING not in self.read("/proc/swaps"):
            self.run(f"mkswap {RESTING} && swapon {RESTING}")
        self.run(f"{RESUME}; echo shutdown >/sys/power/disk; echo {IMAGE} >/sys/power/image_size")
        self.run("(sleep 1; echo disk >/sys/power/state) >/dev/null 2>&1 &")
        self._child.wait(GUEST_PATIENCE)

    def wake(self) -> None:
        """A guest that has just booted becomes the one that hibernated."""
        self.run(f"(sleep 1; {RESUME}) >/dev/null 2>&1 &")
        wait_until(self._is_awake, "the hibernated guest")

    def _is_awake(self) -> bool:
        try:
            return self.run(f"test -e {SAID}", timeout=5, check=False).status == 0
        except GuestTimeoutError:  # the kernel that booted has taken it, and is gone
            return False


def rest_disk(folder: Path) -> Path:
    path = folder / "rest.img"
    path.touch(mode=0o600)
    os.truncate(path, 512 * MIB)
    return path


def device_writes(server: RunningServer) -> int:
    counters = server.json_stats()["devices"]["g1"]
    return int(counters["succ_stores"] + counters["failed_stores"])
