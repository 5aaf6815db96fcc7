# SPDX-License-Identifier: BSD-3-Clause
"""Kills a server under verified load again and again, and looks at every page after each start.

    python -m tests.crash.harness --kills 1000 --seed 7

Two devices share a pool that is too small for them; several connections write, trim, zero and read
them with requests of all sizes, and an operator shrinks the pool or changes a third device.  At a
random moment the server is killed (SIGKILL; now and then SIGTERM, or once more while it recovers),
started again, and each page is compared with what was acknowledged: one whose write was in flight
may be old or new, nothing else may differ (tests/crash/expected.py).  A page's content says which
write it comes from.  Now and then the host is rebooted too, and shared memory goes.  Then a page
may be an I/O error, which a guest that begins again trims away, but no other than it was; after a
clean stop only those that were in memory are errors, and the scan zone never is one.

A third disk is a writable image.  What was answered of it is in its file when the server is gone,
before the next one starts, and no reboot takes any of it.  Two more are base images that are only
read; now and then their files are changed while no server runs.  With `--image-alone` no swap
device has a part of the pool.  With `--remote` a real store beside the server has copies of what is
on disk, of every life of the server's before, and none of them may ever be read again.

Exit status 1 at the first wrong page or answer, with the seed.  The same seed sends the same
requests, but the moments of the kills differ from run to run.
"""

import argparse
import errno
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import nbd

from preswapd.demo.server import ServerError
from preswapd.preswap.files.maps import TMEM
from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import discard
from tests.crash.expected import ExpectedDevice, WrongPageError
from tests.crash.load import Load, connected
from tests.crash.operating import Operator
from tests.crash.reading import Readers
from tests.precache.running import content
from tests.remote.stores import StoreServer
from tests.running import RunningServer, wait_until

DEVICES = {"g1": "8M", "g2": "4M"}
IMAGE, IMAGE_BYTES = "g3", 6 << 20
BASES, BASE_BYTES = {"b1": 'cache = "1M"', "b2": 'admit = "second"'}, 3 << 20
POOL = 4 << 20
# The allocator cannot use the last per cent for new pages.
FULL = POOL * 97 // 100
POLL_SECONDS = 0.0005
# Of the remote tier's figures.
REMOTE = ("reads", "sets", "misses", "late", "away", "wrong")
# Of the lives that begin with it; others have only begun to look for it.
STORE_SHARE = 0.7
REMOTE_OPTIONS = ("--remote-timeout=100ms", "--writeback-room=25%")

SIGTERM_SHARE = 0.1
AGAIN_SHARE = 0.15
REBOOT_SHARE = 0.15
OPERATOR_SHARE = 0.5
CHANGE_SHARE = 0.15


class DirtyRecoveryError(AssertionError):
    """A start found what no kill may leave."""


@dataclass
class Record:
    """What happened so far."""

    begun: float = field(default_factory=time.monotonic)
    ends: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    uncertain_pages: int = 0
    base_pages: int = 0
    full: int = 0
    reboots: int = 0
    remote: Counter[str] = field(default_factory=Counter)
    recovered: list[int] = field(default_factory=list)
    away: list[float] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.ends.values())

    def line(self) -> str:
        seconds = time.monotonic() - self.begun
        return (
            f"{self.kills} kills in {seconds:.0f} s ({self.kills / seconds:.2f}/s),"
            f" {sum(self.requests.values()) - self.requests['pages acknowledged']} requests,"
            f" recovered {statistics.mean(self.recovered or [0]):.0f} pages a start,"
            f" kill to serving {statistics.median(self.away or [0]):.2f} s"
        )

    def summary(self) -> str:
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.ends.items()))
        requests = ", ".join(f"{count} {name}" for name, count in self.requests.most_common())
        return (
            f"{self.line()}\n  ended by: {ends}; then {self.reboots} reboots of the host\n"
            f"  requests: {requests}; {self.base_pages} pages of base images read\n"
            f"  pages with a write in flight at a kill: {self.uncertain_pages};"
            f" pool full at {100 * self.full // max(1, self.kills)} % of the kills;"
            f" longest kill to serving {max(self.away, default=0):.2f} s\n{self.of_the_store()}"
            "  no page was wrong"
        )

    def of_the_store(self) -> str:
        if not self.remote:
            return ""
        counts = ", ".join(f"{self.remote[name]} {name}" for name in REMOTE)
        return f"  pages of the store, as far as it was seen before a kill: {counts}\n"


class Harness:
    """A server, what its devices must hold, and the course of its deaths."""

    def __init__(
        self,
        server: RunningServer,
        seed: int,
        images: Mapping[str, Path] = {},
        bases: Mapping[str, Path] = {},
        has_store: bool = False,
    ) -> None:
        """Those that are written to, and those that are not; whether there is a remote tier."""
        self.server = server
        self.files, self.base_files = images, bases
        self.bases = {name: path.read_bytes() for name, path in bases.items()}
        self.has_store = has_store
        self.random = random.Random(seed)
        self.record = Record()
        self.seq = 0
        self.devices = [ExpectedDevice(name, self.first_content(name)) for name in server.devices]
        for device in self.devices:
            if any(device.settled[1][0]):
                raise DirtyRecoveryError(f"{device.name} is not empty at its first start")
        self.images = [ExpectedDevice(name, path.read_bytes()) for name, path in images.items()]

    def first_content(self, device: str) -> bytes:
        """Once its guest has begun with it: a new device knows none of its pages."""
        discard(connected(self.server.nbd_uri(device))).shutdown()
        return self.content(device)

    def content(self, device: str) -> bytes:
        """All of a device; libnbd's errors say which read failed."""
        handle = connected(self.server.nbd_uri(device))
        size = handle.get_size()
        step = 4 << 20
        pieces = [bytes(handle.pread(min(step, size - at), at)) for at in range(0, size, step)]
        handle.shutdown()
        return b"".join(pieces)

    def kill_once(self) -> None:
        """Load, a kill, a start, and a look at every page."""
        name = "SIGTERM" if self.random.random() < SIGTERM_SHARE else "SIGKILL"
        self.run_load(signal.Signals[name])
        self.record.ends[name] += 1
        begun = time.monotonic()
        self.check_files()
        if self.bases and self.random.random() < CHANGE_SHARE:
            self.change_base()
        if self.random.random() < REBOOT_SHARE:
            self.reboot(name)
            return
        if self.random.random() < AGAIN_SHARE:
            self.kill_in_recovery()
        self.start()
        self.record.away.append(time.monotonic() - begun)
        self.check_pages()

    def reboot(self, ended_by: str) -> None:
        """Then a look at every page, as the guest that begins again has it."""
        in_memory = [self.in_memory(device) for device in self.devices]
        self.server.reboot()
        self.start()
        self.record.reboots += 1
        for device, pages in zip(self.devices, in_memory, strict=True):
            errors = self.check_rebooted(device)
            if ended_by == "SIGTERM" and errors != pages:
                forgotten, kept = sorted(errors - pages), sorted(pages - errors)
                raise DirtyRecoveryError(f"{device.name} has forgotten {forgotten}, kept {kept}")
        for image in self.images:
            image.check_all(self.content(image.name))
        self.check_bases()

    def in_memory(self, device: ExpectedDevice) -> set[int]:
        states = self.server.paths.map(device.name).read_bytes()
        return {page for page in range(device.pages) if states[page] == TMEM}

    def check_rebooted(self, device: ExpectedDevice) -> set[int]:
        """Which of its pages were errors; they are zeros now."""
        handle = connected(self.server.nbd_uri(device.name))
        places, errors = zone(device.pages), set()
        for page in range(device.pages):
            try:
                found = bytes(handle.pread(PAGE, page * PAGE))
            except nbd.Error as error:
                if error.errnum != errno.EIO or any(page in part for part in places):
                    raise
                handle.trim(PAGE, page * PAGE)
                device.clear(page)
                errors.add(page)
            else:
                device.check(page, found)
        handle.shutdown()
        return errors

    def run_load(self, number: signal.Signals) -> None:
        operator = Operator(self.server, self.random, self.operator_delay())
        exports = [*self.devices, *self.images]
        load = Load(exports, self.server.nbd_uri, self.random, self.seq)
        readers = Readers(self.bases, self.server.nbd_uri, self.seq)
        if self.has_store and self.random.random() < STORE_SHARE:
            wait_until(self.has_found_store, "the server to find its store")
        operator.start()

        def end() -> None:
            if self.has_store:
                self.note_remote()
            operator.killed.set()
            self.server.running.send_signal(number)

        load.run(self.random.uniform(0.05, 0.5), end)
        operator.join()
        readers.join()
        self.record.base_pages += readers.pages
        status = self.server.wait()
        if status != (0 if number == signal.SIGTERM else -signal.SIGKILL):
            raise DirtyRecoveryError(f"{number.name} ended the server with status {status}")
        self.seq = load.seq
        self.note(load)

    def has_found_store(self) -> bool:
        store = self.server.client.remote().store
        return store is not None and store["state"] == "ok"

    def note_remote(self) -> None:
        """What this life has had of the store: its figures end with it."""
        figures = cast(Mapping[str, Any], self.server.client.stats())["remote"]
        seen = {name: figures[f"remote_{name}"] for name in REMOTE}
        if seen["wrong"]:
            raise WrongPageError(f"the store, which never lies, has said what is wrong: {seen}")
        self.record.remote += Counter(seen)

    def operator_delay(self) -> float | None:
        if self.random.random() < OPERATOR_SHARE:
            return self.random.uniform(0, 0.3)
        return None

    def note(self, load: Load) -> None:
        record = self.record
        record.requests += load.count
        record.full += self.server.arena.stat().st_blocks * 512 >= FULL
        for device in (*self.devices, *self.images):
            record.uncertain_pages += len(device.busy)
            device.server_gone()

    def start(self) -> None:
        before = len(self.server.lines)
        self.server.start()
        for line in self.server.lines[before:]:
            if line.startswith("recovered "):
                self.record.recovered.append(int(line.split()[1]))
                if "0 damaged slots, 0 pages lost" not in line:
                    raise DirtyRecoveryError(line)

    def kill_in_recovery(self) -> None:
        """A start that is killed soon after it has opened the arena."""
        killer = threading.Thread(target=self.kill_when_open, args=(self.random.uniform(0, 0.02),))
        killer.start()
        try:
            self.server.start()
        except ServerError:
            self.record.ends["SIGKILL while it started"] += 1
        else:
            self.record.ends["SIGKILL soon after its start"] += 1
        killer.join()
        self.server.wait()

    def kill_when_open(self, delay: float) -> None:
        while (child := self.server.child) is None:
            time.sleep(POLL_SECONDS)
        proc = Path(f"/proc/{child.pid}")
        while child.status is None and not has_opened(proc, self.server.arena):
            time.sleep(POLL_SECONDS)
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)

    def check_pages(self) -> None:
        for device in (*self.devices, *self.images):
            device.check_all(self.content(device.name))
        self.check_bases()

    def check_bases(self) -> None:
        """Twice: what the first look has cached."""
        for _ in range(2):
            for name, right in self.bases.items():
                if self.content(name) != right:
                    raise WrongPageError(f"{name} is not what its file is")

    def change_base(self) -> None:
        """While nobody serves it."""
        name = self.random.choice(sorted(self.bases))
        at = self.random.randrange(len(self.bases[name]) - 8 * PAGE)
        with self.base_files[name].open("r+b") as file:
            file.seek(at)
            file.write(self.random.randbytes(8 * PAGE))
        self.bases[name] = self.base_files[name].read_bytes()

    def check_files(self) -> None:
        """Of the images, while nobody serves them."""
        for image in self.images:
            image.check_all(self.files[image.name].read_bytes())
        for name, right in self.bases.items():
            if self.base_files[name].read_bytes() != right:
                raise WrongPageError(f"the file of {name} was written to")


def has_opened(proc: Path, arena: Path) -> bool:
    """The process is nbdkit, and has the arena mapped."""
    try:
        return (proc / "comm").read_text() == "nbdkit\n" and str(arena) in (
            proc / "maps"
        ).read_text()
    except OSError:
        return False


def run(kills: int, seed: int, every: int, image_alone: bool, remote: bool = False) -> int:
    """The exit status."""
    print(f"seed {seed}, {kills} kills", flush=True)
    with tempfile.TemporaryDirectory() as tmp, ExitStack() as stack:
        path = Path(tmp, f"{IMAGE}.raw")
        path.write_bytes(bytes(IMAGE_BYTES))
        devices = {} if image_alone else DEVICES
        bases = {name: Path(tmp, f"{name}.raw") for name in BASES}
        for name, base in bases.items():
            base.write_bytes(content(BASE_BYTES, ord(name[-1])))
        config = Path(tmp, "bases.toml")
        config.write_text(
            "".join(f'[image.{name}]\npath = "{bases[name]}"\n{BASES[name]}\n' for name in BASES)
        )
        options = [f"--config={config}", f"--image={IMAGE}={path}", f"--writable={IMAGE}"]
        if remote:
            store = stack.enter_context(StoreServer(Path(tmp, "store")))
            options += [f"--remote-url={store.url}", *REMOTE_OPTIONS]
        server = stack.enter_context(RunningServer(Path(tmp), devices, str(POOL), options))
        harness = Harness(server, seed, {IMAGE: path}, bases, remote)
        record = harness.record
        shown = 0
        try:
            while record.kills < kills:
                harness.kill_once()
                if record.kills // every > shown:
                    shown = record.kills // every
                    print(record.line(), flush=True)
        except Exception as error:
            print(f"after {record.kills} kills: {type(error).__name__}: {error}", flush=True)
            print(f"seed {seed}: {record.line()}", flush=True)
            return 1
        print(record.summary(), flush=True)
        server.log_file.unlink()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one")
    parser.add_argument("--every", type=int, default=50, help="a line after so many kills")
    parser.add_argument(
        "--image-alone", action="store_true", help="no swap disks beside the images"
    )
    parser.add_argument("--remote", action="store_true", help="with a store beside the server")
    given = parser.parse_args()
    # Like Ctrl-C, so that the server and its directories go too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    return run(given.kills, seed, given.every, given.image_alone, given.remote)


if __name__ == "__main__":
    sys.exit(main())
