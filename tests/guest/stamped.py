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
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from preswapd.guest.faults import GuestError, GuestTimeoutError
from preswapd.guest.initramfs import INIT
from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import COMMAND_SECONDS, Guest, Hardware, Software
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
# MiB that reclaim leaves it, nearly one of them for the program and what it knows of its pages: how
# far Linux goes below a cgroup's limit is its own affair.
KEPT = 3

ASK, SAID = "/run/ask", "/run/said"
RESTING = "/dev/vda"
RESUMING = "/run/resuming"
RESUME = "cat /sys/block/vda/dev >/sys/power/resume"
# The limit is that of the outer one, as what a cgroup itself is to keep does not count there.
SWAPS = "/cgroup/swaps"
STAMPED_IN = f"{SWAPS}/stamped"
STAMPS = f"""
echo 0 >{STAMPED_IN}/cgroup.procs
echo -1000 >/proc/self/oom_score_adj
exec /bin/stamps {{mib}} <>{ASK} >{SAID}
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
        stamped: int = STAMPED,
        memory: int = MEMORY,
    ) -> None:
        """`hardware` takes the place of the disk; MiB that are stamped, and that may stay."""
        self.server = server
        self.stamped, self.memory = stamped, memory
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
        self.stamp(f"{self.memory}M")
        assert device_writes(self.server) > ENOUGH

    def stamp(self, high: str = "max") -> None:
        """For the first time."""
        # Not memory.max: with a slow swap disk Linux says rather that it is out of memory.
        self.run(f"mkdir {SWAPS} && echo {high} >{SWAPS}/memory.high")
        self.run(f"echo +memory >{SWAPS}/cgroup.subtree_control; mkdir {STAMPED_IN}")
        self.keep(KEPT)
        self.run(f"mkfifo {ASK}; touch {SAID}")
        self.start("stamps", STAMPS.format(mib=self.stamped))
        self.assert_all_right("wc")

    def keep(self, mib: int) -> None:
        """So much of it stays in memory, whoever wants some."""
        self.run(f"for each in {SWAPS} {STAMPED_IN}; do echo {mib}M >$each/memory.min; done")

    def order(self, orders: str) -> None:
        """Rounds of writes (w) and checks (c), one after the other."""
        self.run(f"printf {orders} >{ASK}")

    def order_soon(self, orders: str) -> None:
        """For one that may be paused before it could answer."""
        self.run(f"(sleep 1; printf {orders} >{ASK}) >/dev/null 2>&1 &")

    def seen(self, timeout: float = COMMAND_SECONDS) -> list[Seen]:
        """The rounds that have ended."""
        lines = self.run(f"cat {SAID}", timeout).output.splitlines()
        return [Seen(words[0], *map(int, words[1:])) for words in map(str.split, lines)]

    def rounds(self, orders: str) -> list[Seen]:
        """What came of these orders."""
        before = len(self.seen())
        self.order(orders)
        whole = before + len(orders)
        return wait_for(self.seen, lambda seen: len(seen) >= whole, 2 * GUEST_PATIENCE)[before:]

    def assert_all_right(self, orders: str) -> None:
        pages = self.stamped * MIB // PAGE_SIZE
        assert self.rounds(orders) == [Seen(order, pages, 0, 0, 0, 0) for order in orders]

    def assert_nothing_false(self, orders: str) -> list[Seen]:
        """Each page is right or an I/O error, and there are enough of both."""
        # Thousands of errors take minutes to say, and each would take its neighbours with it; and
        # with a limit, what is in memory still would make room for pages that are read in vain.
        self.run("dmesg -n 1; echo 0 >/proc/sys/vm/page-cluster")
        self.run(f"echo max >{SWAPS}/memory.high")
        rounds = self.rounds(orders)
        for seen in rounds:
            seen.assert_nothing_false()
        print(rounds)  # for who measures
        assert rounds[0].failed > ENOUGH
        assert rounds[0].right > ENOUGH
        return rounds

    def swap_out(self) -> None:
        """All of what is stamped, as far as the kernel can; what was read in vain goes first."""
        self.keep(0)
        self.run(f"echo {2 * self.stamped}M >{SWAPS}/memory.reclaim", check=False)

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
        for last in (False, False, True):
            # On a busy host it was seen not to; an image that Linux cannot read it does not find
            # again.
            with suppress(GuestTimeoutError):
                self.run(f"(sleep 1; {RESUME}) >{RESUMING} 2>&1 &")
            try:
                wait_until(self._is_awake, "the hibernated guest", GUEST_PATIENCE / 2)
            except AssertionError as error:
                with suppress(GuestError):
                    error.add_note(self.run(f"cat {RESUMING}; dmesg | tail -n 40").output)
                error.add_note(self.console())
                if last:
                    raise
                print(*error.__notes__, sep="\n")
            else:
                return

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
