# SPDX-License-Identifier: BSD-3-Clause
"""Real guests from one image, one of which swaps in the same instance, and the image changes.

    .venv/bin/python -m tests.guest.one_image
    .venv/bin/python -m tests.guest.one_image --guests 4 --mib 64

The disk of each guest is a qcow2 overlay over the image's export. First one guest reads all of it,
then as many as `--guests` says, all at once, by a new server, while one of them swaps as hard as it
can. Each writes to its overlay, too. Then the pool is made too small for swap and image together,
and at last somebody writes to the image's file. Every byte is compared by sums, each time.

Exit status 1 if a byte was wrong, the disk was read more than 1.1 times as much for all guests as
for one, or the change was not noticed.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from preswapd.guest.kernel import Kernel, default_cache, find_kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.memory import memory_leaving
from preswapd.guest.programs import find
from preswapd.units import PAGE_SIZE
from tests.guest.swapping import SwappingGuest, device, disks, pages
from tests.running import GUEST_PATIENCE, RunningServer, wait_for

MIB = 1 << 20
IMAGE = "base"
AVAILABLE = 24 * MIB
LIFE_SECONDS = 1800.0
READ_SECONDS = 600.0
# Of reads from the file, for all guests, to those for one.
SHARED = 1.1
POOL = "256M"

FIND = """for d in /sys/block/vd*; do [ "$(cat $d/serial)" = image ] && disk=/dev/${{d##*/}}; done
"""
# By reads that come from the disk, not from the guest's own page cache.
SUMS = (
    FIND
    + """sync; echo 3 >/proc/sys/vm/drop_caches
for n in $(seq 0 {last}); do
  dd if=$disk bs=64k count=16 skip=$((16 * n)) 2>/dev/null | sha256sum | cut -d ' ' -f 1
done"""
)
WRITE = (
    FIND
    + """yes {word} | head -c {page} >/run/own
dd if=/run/own of=$disk bs={page} seek={first} conv=notrunc 2>/dev/null"""
)


class WrongError(Exception):
    """What a guest or the server said is not what it must be."""


class Farm:
    """A server with an image of so many MiB and a swap device, and guests of it."""

    def __init__(self, server: RunningServer, path: Path, kernel: Kernel, cache: Path) -> None:
        self.server = server
        self.path = path
        self.kernel = kernel
        self.cache = cache
        self.content = bytearray(path.read_bytes())

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.json_stats()["images"][IMAGE]
        return found

    def wait_for_cached(self) -> None:
        wait_for(lambda: self.figures()["cached"], bool, GUEST_PATIENCE)

    def overlay(self, folder: Path, name: str) -> list[str]:
        """QEMU's options for a fresh overlay over the image's export."""
        made = folder / f"{name}.qcow2"
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"]
        base = self.server.nbd_uri(IMAGE)
        subprocess.run([*command, "-b", base, str(made)], check=True, timeout=GUEST_PATIENCE)
        return [
            *("-drive", f"if=none,id=image,file={made},format=qcow2"),
            *("-device", "virtio-blk-pci,drive=image,serial=image"),
        ]

    def guest(self, folder: Path, name: str) -> Guest:
        hardware = Hardware(
            memory_leaving(AVAILABLE, self.kernel, self.cache),
            processors=1,
            disks=self.overlay(folder, name),
        )
        return Guest(hardware, Software(self.kernel), self.cache, life=LIFE_SECONDS)

    def swapping_guest(self, folder: Path, name: str) -> SwappingGuest:
        options = [*disks(self.server), *self.overlay(folder, name)]
        guest = SwappingGuest(self.server, self.kernel, self.cache, folder, hardware=options)
        guest.life = LIFE_SECONDS
        return guest

    @contextmanager
    def guests(self, number: int, folder: Path) -> Iterator[list[Guest]]:
        """The first one swaps."""
        with ExitStack() as stack:
            begun: list[Guest] = [stack.enter_context(self.swapping_guest(folder, "guest0"))]
            for which in range(1, number):
                begun.append(stack.enter_context(self.guest(folder, f"guest{which}")))
            yield begun

    def write(self, guests: Sequence[Guest]) -> None:
        """Each a page of its own overlay, at the same place."""
        for number, guest in enumerate(guests):
            guest.run(WRITE.format(word=word_of(number), page=PAGE_SIZE, first=1), GUEST_PATIENCE)

    def check(self, guests: Sequence[Guest], *, written: bool = True) -> None:
        """All of them read the whole image, at once."""
        command = SUMS.format(last=len(self.content) // MIB - 1)
        with ThreadPoolExecutor(len(guests)) as pool:
            seen = list(pool.map(lambda guest: guest.run(command, READ_SECONDS), guests))
        for number, outcome in enumerate(seen):
            wanted = self.sums(number if written else None)
            for place, (sum_seen, right) in enumerate(
                zip(outcome.output.split(), wanted, strict=True)
            ):
                if sum_seen != right:
                    raise WrongError(f"guest {number} read a wrong byte of MiB {place}")

    def sums(self, number: int | None) -> list[str]:
        """Of each MiB, as the guest of that number sees it, or one that wrote nothing."""
        content = bytearray(self.content)
        if number is not None:
            line = f"{word_of(number)}\n".encode()
            content[PAGE_SIZE : 2 * PAGE_SIZE] = (line * PAGE_SIZE)[:PAGE_SIZE]
        return [
            hashlib.sha256(content[at : at + MIB]).hexdigest() for at in range(0, len(content), MIB)
        ]

    def change(self, place: int) -> None:
        """A MiB of the image, by somebody else than the server."""
        self.content[place * MIB : (place + 1) * MIB] = pages(101)
        with self.path.open("r+b") as file:
            file.seek(place * MIB)
            file.write(self.content[place * MIB : (place + 1) * MIB])

    def check_change_was_noticed(self, since: int) -> None:
        """`since`: lines of the log before it."""
        self.server.wait_for_line(f"{IMAGE}: {self.path} was changed", since=since)
        self.wait_for_cached()


def word_of(number: int) -> str:
    return f"guest-{number}"


def image(path: Path, mib: int) -> Path:
    with path.open("wb") as file:
        for number in range(mib):
            file.write(pages(number))
    return path


@contextmanager
def farm(path: Path, tmp: Path, kernel: Kernel, cache: Path) -> Iterator[Farm]:
    """With an empty cache, and settled; its devices are others than another one's."""
    tmp = Path(tempfile.mkdtemp(dir=tmp))
    options = [f"--image={IMAGE}={path}"]
    with RunningServer(tmp, {"g1": "256M"}, POOL, options) as server:
        made = Farm(server, path, kernel, cache)
        made.wait_for_cached()
        yield made


def limit_pool(server: RunningServer, size: int) -> None:
    """In bytes.  Returns once the pool is no larger."""
    server.ctl("sysctl", f"preswap.default.pool_limit={size}", timeout=GUEST_PATIENCE)


def read_by_one(path: Path, folder: Path, kernel: Kernel, cache: Path) -> int:
    """Pages read from the file for the only guest."""
    with farm(path, folder, kernel, cache) as one, one.guest(folder, "alone") as guest:
        one.check([guest], written=False)
        return int(one.figures()["disk_reads"])


def read_by_all(farmed: Farm, guests: Sequence[Guest]) -> int:
    """Pages read from the file for all of them, the first of which swaps meanwhile."""
    swapping = guests[0]
    assert isinstance(swapping, SwappingGuest)
    swapping.swapon("g1")
    swapping.fill()
    load = swapping.start_load()
    farmed.check(guests, written=False)
    swapping.stop_load(load)
    return int(farmed.figures()["disk_reads"])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.guest.one_image",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--guests", type=int, default=8)
    parser.add_argument("--mib", type=int, default=32, help="the image's size")
    given = parser.parse_args()
    find("qemu-img", "qemu-utils")
    cache = default_cache()
    kernel = find_kernel(cache)
    with tempfile.TemporaryDirectory(prefix="preswapd-one-image-") as name:
        folder = Path(name)
        path = image(folder / "base.raw", given.mib)
        alone = read_by_one(path, folder, kernel, cache)
        note(f"one guest: {alone} pages read from the file, every byte right")
        try:
            with farm(path, folder, kernel, cache) as farmed:
                all_steps(farmed, given.guests, folder, alone)
        except WrongError as error:
            note(f"wrong: {error}")
            return 1
    return 0


def all_steps(farmed: Farm, number: int, folder: Path, alone: int) -> None:
    server = farmed.server
    with farmed.guests(number, folder) as guests:
        note(f"{number} guests run, each on an overlay of its own")
        together = read_by_all(farmed, guests)
        seen = device(server)
        note(
            f"{number} guests: {together} pages read from the file, {together / alone:.2f} times;"
            f" one of them swapped {seen['succ_stores']} pages out and {seen['loads']} in"
        )
        if together > SHARED * alone:
            raise WrongError(f"{together} pages were read, and {alone} for one guest")
        farmed.write(guests)
        farmed.check(guests)
        note("what each writes to its overlay, no other sees")

        # How much a guest swaps differs with its kernel.
        limit = server.json_stats()["tmem"]["mem_used_total"] * 2 // 3
        limit_pool(server, limit)
        swapping = guests[0]
        assert isinstance(swapping, SwappingGuest)
        load = swapping.start_load()
        farmed.check(guests)
        note(f"a pool of {limit // MIB} MiB: {farmed.figures()['evicted']} pages made room")

        lines = len(server.lines)
        farmed.change(1)
        farmed.check_change_was_noticed(lines)
        farmed.check(guests)
        swapping.stop_load(load)
        note("the image was changed, and noticed; every guest read what it holds now")
        swapping.assert_saw_nothing()
        for guest in guests[1:]:
            if troubles := guest.troubles():
                raise WrongError(f"a guest's log: {troubles}")


def note(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
