# SPDX-License-Identifier: BSD-3-Clause
"""A guest with a balloon, whose memory says of each page what it must hold; it can be parked.

    python -m tests.guest.parking [--memory 1G]

parks one of 1 GiB, all of whose memory was in use, and says how much of it is left on the host, how
soon it answers when it is unparked, beside the same one stopped and continued, and whether every
byte is right.  It takes two minutes under emulation, and needs no privileges.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from preswapd.cli.park.balloon import OPTION
from preswapd.guest.kernel import Kernel, default_cache, find_kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.host.huge_pages import FOLDER
from preswapd.host.processes import resident
from preswapd.qmp import Monitor
from preswapd.units import PAGE_SIZE, format_size, parse_size
from tests.guest.stamped import ASK, SAID, Seen, StampedGuest, compiled, disk
from tests.running import GUEST_PATIENCE, RunningServer

MIB = 1 << 20
# khugepaged makes them; on x86.
HUGE_PAGE = 2 * MIB
# Of 320 MiB Linux takes 65; of a GiB, 75.
SMALL, SMALL_STAMPED = 320 * MIB, 160
PARK_SECONDS = 170.0
# The floor is a seventh, 14.3 %.
MOST_LEFT = 0.15


class IdleGuest(StampedGuest):
    """With a balloon, and a second monitor for `preswapctl`."""

    def __init__(
        self,
        server: RunningServer,
        kernel: Kernel,
        cache: Path,
        folder: Path,
        *,
        memory: int = SMALL,
        stamped: int = SMALL_STAMPED,
        material: Path | None = None,
        balloon: str = OPTION,
    ) -> None:
        """`stamped`: MiB of a program that looks after each of its pages."""
        self.server = server
        self.stamped = stamped
        self.qmp = server.base / "guest.qmp"
        hardware = Hardware(
            memory,
            disks=[
                *disk(server, "scsi", False),
                *balloon.split(),
                *("-qmp", f"unix:{self.qmp},server=on,wait=off"),
            ],
            material=material,
        )
        software = Software(
            kernel, files={"/bin/stamps": compiled(folder)}, drivers=["virtio_balloon"]
        )
        Guest.__init__(self, hardware, software, cache, life=500)

    def fill(self) -> None:
        """Swap turned on by label; memory stamped, and enough of it for all."""
        self.swapon("g1")
        self.run(f"mkfifo {ASK}; touch {SAID}")
        self.start("stamps", f"exec /bin/stamps {self.stamped} <>{ASK} >{SAID}")
        self.check("w")

    def check(self, orders: str = "c") -> None:
        """Every byte of every page."""
        pages = self.stamped * MIB // PAGE_SIZE
        seen = self.rounds(orders)
        assert seen == [Seen(order, pages, 0, 0, 0, 0) for order in orders], seen

    # --- what the host sees ---

    def has(self) -> int:
        with closing(Monitor.at(self.qmp)) as monitor:
            return int(monitor.execute("query-balloon")["actual"])

    def block(self) -> int:
        """Bytes of the host's memory that its RAM block takes."""
        return resident_of(self.pid, self.hardware.memory)


def resident_of(pid: int, size: int) -> int:
    """Of the one mapping of that size; QEMU may have split it, so of all parts within it."""
    mappings = list(smaps(pid))
    start = max(mappings, key=lambda found: found.end - found.start).start
    inside = [one for one in mappings if start <= one.start < start + size]
    return sum(one.resident for one in inside)


class Mapping(NamedTuple):
    start: int
    end: int
    resident: int


def smaps(pid: int) -> list[Mapping]:
    found: list[Mapping] = []
    start = end = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            start, end = (int(number, 16) for number in words[0].split("-"))
        elif words[0] == "Rss:":
            found.append(Mapping(start, end, int(words[1]) << 10))
    return found


# --- the figures ---


def seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.guest.parking")
    parser.add_argument("--memory", type=parse_size, default=1 << 30, metavar="SIZE")
    parser.add_argument("--pool", default="512M", metavar="SIZE")
    arguments = parser.parse_args()
    memory: int = arguments.memory
    cache = default_cache()
    with tempfile.TemporaryDirectory(prefix="preswapd-parking-", dir="/var/tmp") as folder:
        tmp = Path(folder)
        material = tmp / "material"
        with material.open("wb") as file:
            os.truncate(file.fileno(), memory)
        with (
            RunningServer(tmp, {"g1": "2G"}, arguments.pool) as server,
            IdleGuest(
                server,
                find_kernel(cache),
                cache,
                tmp,
                memory=memory,
                stamped=min(512, memory // MIB // 2),
                material=material,
            ) as guest,
        ):
            measure(guest)


def measure(guest: IdleGuest) -> None:
    server, memory = guest.server, guest.hardware.memory
    print(f"a guest of {format_size(memory)}, {guest.accelerator}, Linux {guest.kernel_version}")
    guest.fill()
    # What was read of a disk fills the rest of its memory, and stays there while it is open.
    guest.start("holder", "exec sleep 900 </dev/vda")
    guest.run("dd if=/dev/vda of=/dev/null bs=1M", GUEST_PATIENCE)
    say("in use", guest)

    print(f"an answer: {seconds(lambda: guest.run(':')):.3f} s")
    with closing(Monitor.at(guest.qmp)) as monitor:
        monitor.execute("stop")
        time.sleep(1)

        def go_on() -> None:
            monitor.execute("cont")
            guest.run(":")

        print(f"stopped and continued: it answers {seconds(go_on):.3f} s after")
    print(f"  and has read all of its memory {seconds(guest.check):.1f} s after that")

    begun, huge_pages = time.monotonic(), made_huge()
    done = server.ctl("park", "g1", f"--qmp={guest.qmp}", timeout=PARK_SECONDS)
    print(done.stderr, done.stdout, sep="", end="")
    print(f"parked in {time.monotonic() - begun:.0f} s")
    block, filled = say("parked", guest), HUGE_PAGE * (made_huge() - huge_pages)
    print(f"  the host's khugepaged filled up {format_size(filled)} meanwhile, at most")
    stats = server.json_stats()
    print(f"  the pool takes {format_size(stats['tmem']['mem_used_total'])}")
    assert stats["devices"]["g1"]["parked"] > 0
    print(f"  an answer while it is parked: {seconds(lambda: guest.run(':')):.3f} s")

    def unpark() -> None:
        print(json.loads(server.ctl("--json", "unpark", "g1").stdout))

    print(f"unparked: the command took {seconds(unpark):.3f} s")
    print(f"  it answers {seconds(lambda: guest.run(':')):.3f} s after")
    print(
        f"  and has read all of its memory, right in every byte, {seconds(guest.check):.1f} s after"
    )
    say("unparked", guest)
    assert server.json_stats()["devices"]["g1"]["parked"] == 0
    assert guest.troubles() == []
    assert "BLOCK_IO_ERROR" not in guest.kinds()
    print(f"{100 * block / memory:.1f} % of its RAM block were left on the host")
    # What the host fills up by itself is no doing of the balloon's.
    sys.exit(0 if (block - filled) / memory <= MOST_LEFT else 1)


def made_huge() -> int:
    """Huge pages that khugepaged has made of smaller ones since the host's boot, anybody's."""
    found = FOLDER / "khugepaged" / "pages_collapsed"
    return int(found.read_text()) if found.exists() else 0


def say(what: str, guest: IdleGuest) -> int:
    block, whole = guest.block(), resident(guest.pid) or 0
    print(
        f"{what}: its RAM block takes {format_size(block)}"
        f" ({100 * block / guest.hardware.memory:.1f} %), all of QEMU {format_size(whole)}"
    )
    return block


if __name__ == "__main__":
    main()
