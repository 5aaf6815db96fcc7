# SPDX-License-Identifier: BSD-3-Clause
"""A whole server whose remote tier is a real cluster, to which everything happens that may.

    python -m tests.faults.remote_cluster --seconds 600 --seed 7

Three masters and three replicas, each at a host of its own: a network namespace, so it needs root.
Four clients write, trim and read a device that has far more pages than its pool has room for; now
and then all of it goes to disk, and so to the store.  Meanwhile nodes are killed, stopped, cut off,
promoted without what they should have, filled up and emptied, come back with nothing or with what
they had long ago, slots move, and the courier dies.
Each page that is read is compared with what was acknowledged last, and while a fault lasts all of
them are read: no read may wait for its end.

Exit status 1 at the first wrong page, I/O error or read that takes longer than LONGEST_READ, with
the seed.  The same seed sends the same requests and faults; moments differ from run to run.
"""

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

from preswapd.api.messages import ShrinkProgress
from preswapd.remote.courier.slots import SLOTS, slot_of
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected
from tests.crash.contents import ZEROS, Kind, difference, page_content
from tests.remote.moving_slots import begin_to_move, end_move, move_all, move_keys
from tests.remote.networks import Network, NoNetworkError
from tests.remote.stores import Cluster, StoreServer, seen_as_itself, seen_by, server_program
from tests.running import RunningServer, wait_until

SIZE, POOL = "24M", "4M"
PAGES = ((24 << 20) - (2 << 20) - BEHIND_ZONE) // PAGE
DEVICES = ("g1", "g2", "g3", "g4")
CLIENTS = len(DEVICES)
# NBD's requests, in pages.
LENGTHS = (1, 1, 1, 2, 8, 32)
# Between two requests, so that servers, nodes and courier come to their turn on a small machine.
PAUSE_SECONDS = 0.003
# A read that hangs, on any machine.  How long those of a fault took is in the figures.
LONGEST_READ = 10.0
SLOTS_MOVED = 40
# A part of all pages, which is enough for what is to be lost, moved or read.
ENOUGH = PAGES // 4


class WrongError(AssertionError):
    """What a guest must never see."""


def nobody_asks(step: ShrinkProgress) -> None:
    """How far a shrink is."""


class Swapper(threading.Thread):
    """The client of a device, and what each page of a part of it must hold."""

    def __init__(self, server: RunningServer, number: int, seed: int) -> None:
        super().__init__(name=f"swapper {number}", daemon=True)
        self.random = random.Random(f"{seed} {number}")
        share = PAGES // CLIENTS
        self.first = BEHIND_ZONE // PAGE
        self.device = DEVICES[number]
        self.truth = [ZEROS] * share
        self.client = connected(server, self.device)
        self.client.trim(share * PAGE, self.first * PAGE)
        self.seq = 0
        self.pages_read = 0
        self.longest = 0.0
        self.failure: Exception | None = None
        self.has_to_end = False
        # How often all pages were to be looked at, and were.
        self.wanted = self.looked = 0

    def run(self) -> None:
        try:
            while not self.has_to_end:
                self.step()
                time.sleep(PAUSE_SECONDS)
        except Exception as error:
            self.failure = error

    def step(self) -> None:
        if self.looked < (wanted := self.wanted):
            self.read_all()
            self.looked = wanted
        chosen = self.random.random()
        first, count = self.some()
        if chosen < 0.6:
            self.read(first, count)
        elif chosen < 0.95:
            self.write(first, count)
        else:
            self.client.trim(count * PAGE, (self.first + first) * PAGE)
            self.truth[first : first + count] = [ZEROS] * count

    def some(self) -> tuple[int, int]:
        first = self.random.randrange(len(self.truth))
        return first, min(self.random.choice(LENGTHS), len(self.truth) - first)

    def write(self, first: int, count: int) -> None:
        content = [self.content(page) for page in range(first, first + count)]
        self.client.pwrite(b"".join(content), (self.first + first) * PAGE)
        self.truth[first : first + count] = content

    def content(self, page: int) -> bytes:
        self.seq += 1
        kind = self.random.choice(list(Kind))
        return page_content(kind, self.device, self.first + page, self.seq, self.random)

    def write_all(self) -> None:
        for first in range(0, len(self.truth), 32):
            self.write(first, min(32, len(self.truth) - first))

    def read(self, first: int, count: int) -> None:
        begun = time.monotonic()
        found = bytes(self.client.pread(count * PAGE, (self.first + first) * PAGE))
        self.longest = max(self.longest, time.monotonic() - begun)
        for number in range(count):
            right, page = self.truth[first + number], found[number * PAGE : (number + 1) * PAGE]
            if page != right:
                at = self.first + first + number
                raise WrongError(f"page {at}: {difference(page, right)}")
        self.pages_read += count

    def read_all(self) -> None:
        for first in range(0, len(self.truth), 32):
            self.read(first, min(32, len(self.truth) - first))


class Figures(NamedTuple):
    """Of a fault, or of all: pages but for `longest`, in seconds."""

    checked: int
    from_store: int
    misses: int
    late: int
    away: int
    wrong: int
    sets: int
    dropped: int
    refused: int
    from_disk: int
    longest: float

    def since(self, before: "Figures") -> "Figures":
        counted = [now - then for now, then in zip(self[:-1], before[:-1], strict=True)]
        return Figures._make([*counted, self.longest])


class Course:
    """The server, its clients, and the store that things happen to."""

    def __init__(
        self, server: RunningServer, cluster: Cluster, network: Network, seed: int
    ) -> None:
        self.server, self.cluster, self.network = server, cluster, network
        self.random = random.Random(seed)
        self.swappers = [Swapper(server, number, seed) for number in range(CLIENTS)]
        for swapper in self.swappers:
            swapper.write_all()
            swapper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for swapper in self.swappers:
            swapper.has_to_end = True
        for swapper in self.swappers:
            swapper.join(LONGEST_READ)

    # --- what holds always ---

    def check(self) -> None:
        for swapper in self.swappers:
            if swapper.failure is not None:
                raise swapper.failure
            if swapper.longest > LONGEST_READ:
                raise WrongError(f"a read took {swapper.longest:.1f} s")

    def wait_until(self, done: Callable[[], bool], what: str) -> None:
        """While the clients go on, and are right."""

        def is_done() -> bool:
            self.check()
            return done()

        wait_until(is_done, what)

    def write_back(self) -> None:
        """All to disk, and so to the store."""
        with self.server.client.shrink(0) as running:
            report = running.wait(nobody_asks)
        if report.lost:
            raise WrongError(f"a shrink ended with {report}")

    def look(self) -> None:
        """All pages are read, whatever is wrong now."""
        self.write_back()
        for swapper in self.swappers:
            swapper.wanted += 1
        self.wait_until(
            lambda: all(swapper.looked == swapper.wanted for swapper in self.swappers),
            "all pages to be read",
        )

    def look_until(self, name: str, more: int = 1) -> None:
        """Until a counter of the remote tier has grown by so much."""
        before = self.counter(name)

        def has_grown() -> bool:
            self.look()
            return self.counter(name) >= before + more

        self.wait_until(has_grown, f"{name} to grow by {more}")

    def look_while(self, step: Callable[[], None]) -> None:
        """Again and again, while another thread does that."""
        with ThreadPoolExecutor(1) as pool:
            stepping = pool.submit(step)
            while not stepping.done():
                self.look()
            stepping.result()

    # --- what is said of it ---

    def counter(self, name: str) -> int:
        return int(cast(Any, self.server.client.stats())["remote"][name])

    def state(self) -> str:
        store = self.server.client.remote().store
        return str(store["state"]) if store else "not known"

    def nodes_up(self) -> set[str]:
        """Those of the store that the server reads from."""
        store = self.server.client.remote().store or {"nodes": []}
        return {node["address"] for node in store["nodes"] if node["up"]}

    def figures(self) -> Figures:
        stats = cast(Any, self.server.client.stats())
        names = ["reads", "misses", "late", "away", "wrong", "sets", "sets_dropped", "sets_refused"]
        return Figures._make(
            [
                sum(swapper.pages_read for swapper in self.swappers),
                *(stats["remote"][f"remote_{name}"] for name in names),
                sum(device["disk_reads"] for device in stats["devices"].values()),
                max(swapper.longest for swapper in self.swappers),
            ]
        )

    # --- the store ---

    def pair(self) -> tuple[StoreServer, StoreServer]:
        """A master, and its replica."""
        return self.random.choice(self.cluster.pairs())

    def masters(self) -> list[StoreServer]:
        return [master for master, _ in self.cluster.pairs()]

    def host(self, node: StoreServer) -> int:
        return self.cluster.nodes.index(node)

    def wait_for_promotion(self, node: StoreServer) -> None:
        """It has slots of its own, and the server reads from it."""
        self.wait_until(
            lambda: seen_as_itself(node).has_slots,
            "a replica to take over",
        )
        address = f"{node.host}:{node.port}"
        self.wait_until(lambda: address in self.nodes_up(), "the server to find who took over")

    def wait_for_all_nodes(self) -> None:
        try:
            self.wait_until(lambda: self.state() == "ok", "the server to find all of the store")
        except AssertionError as error:
            error.add_note(f"it says {self.server.client.remote().store}")
            raise

    def mend(self) -> None:
        """All as it was, but for who is whose master."""
        for number, node in enumerate(self.cluster.nodes):
            self.network.mend(number)
            if node.process is None:
                node.launch()
            else:
                node.go_on()
        self.wait_until(lambda: all(node.is_there() for node in self.cluster.nodes), "the nodes")
        for node in self.cluster.nodes:
            node("CONFIG", "SET", "maxmemory", 0)
        try:
            self.wait_until(self.cluster.is_whole, "the cluster")
        except AssertionError as error:
            views = [seen_by(node) for node in self.cluster.nodes]
            lost = sorted(self.cluster.lost_slots(views))
            moving = sorted(self.cluster.moving_slots(views))
            error.add_note(f"{len(lost)} slots are lost, {lost[:9]}, {len(moving)} on their way")
            error.add_note(f"it says {views[0]}")
            raise
        self.wait_for_all_nodes()

    def suffer(self, fault: "Fault") -> Figures:
        """It happens, is seen through, and mended; what came of it."""
        for swapper in self.swappers:
            swapper.longest = 0.0
        before = self.figures()
        fault(self)
        self.mend()
        self.look()
        found = self.figures().since(before)
        if found.wrong:
            raise WrongError(f"{found.wrong} answers of a store that never lies were wrong")
        return found


# --- what happens to it ---

Fault = Callable[[Course], None]


def node_killed(course: Course) -> None:
    """Its replica takes over what it has."""
    master, replica = course.pair()
    course.look()
    master.kill()
    course.look()
    course.wait_for_promotion(replica)
    course.look()


def acknowledged_writes_lost(course: Course) -> None:
    """A replica that was cut off is promoted, and has nothing of what was written meanwhile."""
    master, replica = course.pair()
    course.network.drop(course.host(replica))
    course.look_until("remote_sets", ENOUGH)
    assert keys_of(master) - keys_of(replica), "nothing was acknowledged that the replica lacks"
    replica("CLUSTER", "FAILOVER", "TAKEOVER")
    if course.random.random() < 0.5:
        master.kill()
    course.network.mend(course.host(replica))
    course.wait_for_promotion(replica)
    course.look_until("remote_misses")


def keys_of(node: StoreServer) -> set[bytes]:
    with node.client() as client:
        return set(cast(list[bytes], client.execute_command("KEYS", "*")))


def slots_moved(course: Course) -> None:
    """Between two masters, while their keys are asked for and written; one of them stands half
    done for a look at all pages."""
    source, target = course.random.sample(course.masters(), 2)
    masters = course.masters()
    course.look_until("remote_sets", ENOUGH)
    first, *slots = slots_with_keys(source)
    begin_to_move(first, source, target)
    course.look()
    move_keys(first, source, target)
    course.look()
    end_move(first, source, target, masters)
    course.look_while(lambda: move_all(slots, source, target, masters))
    assert all(not source("CLUSTER", "COUNTKEYSINSLOT", slot) for slot in slots)


def slots_with_keys(node: StoreServer) -> list[int]:
    """Of its own: it may have keys of an old file, of slots that are not."""
    own = seen_as_itself(node).slots
    return sorted(own.intersection(slot_of(key) for key in keys_of(node)))[:SLOTS_MOVED]


def unknown_to(node: StoreServer) -> set[int]:
    return set(range(SLOTS)).difference(*(each.slots for each in seen_by(node)))


def link_down(course: Course) -> None:
    cut(course, course.network.unplug)


def packets_dropped(course: Course) -> None:
    """Nothing is refused: what is asked of it is never answered."""
    cut(course, course.network.drop)


def cut(course: Course, cut_off: Callable[[int], None]) -> None:
    master, replica = course.pair()
    course.look()
    cut_off(course.host(master))
    course.look()
    course.wait_for_promotion(replica)
    course.look()


def node_stopped(course: Course) -> None:
    """Its connections stay, and are never answered."""
    master, replica = course.pair()
    course.look()
    master.pause()
    course.look()
    course.wait_for_promotion(replica)
    course.look()


def all_stopped(course: Course) -> None:
    """The whole store hangs."""
    course.look()
    for node in course.cluster.nodes:
        node.pause()
    course.look()
    course.look()


def full(course: Course, policy: str) -> None:
    for master in course.masters():
        master("CONFIG", "SET", "maxmemory-policy", policy)
        master("CONFIG", "SET", "maxmemory", master("INFO", "memory")["used_memory"])


def full_and_refusing(course: Course) -> None:
    """It takes nothing more."""
    course.look()
    full(course, "noeviction")
    course.look_until("remote_sets_refused")


def full_and_evicting(course: Course) -> None:
    """It drops what it likes."""
    course.look()
    full(course, "allkeys-lru")
    course.look_until("remote_misses")


def emptied(course: Course) -> None:
    course.write_back()
    for master in course.masters():
        master("FLUSHALL")
    course.look_until("remote_misses")


def all_gone(course: Course) -> None:
    """All nodes at once; they come back with nothing."""
    course.look()
    for node in course.cluster.nodes:
        node.kill()
    course.wait_until(lambda: course.state() == "away", "the server to see it")
    course.look()
    course.mend()
    course.look_until("remote_reads", ENOUGH)


def all_back_with_old_files(course: Course) -> None:
    """One of the nodes has keys of slots that were moved away since.  Redis 7.0 says that it
    imports them, and once their master has changed that they are nobody's; Redis 8.0 goes on to
    know whose they are; Valkey drops such keys."""
    pairs = course.cluster.pairs()
    (source, _), (target, heir) = course.random.sample(pairs, 2)
    course.look_until("remote_sets", ENOUGH)
    source("SAVE")
    slots = slots_with_keys(source)
    course.look_while(lambda: move_all(slots, source, target, [master for master, _ in pairs]))
    for node in course.cluster.nodes:
        node.kill()
    course.wait_until(lambda: course.state() == "away", "the server to see it")
    for node in course.cluster.nodes:
        node.launch(with_file=True)
    course.wait_for_all_nodes()
    course.look()
    target.kill()
    course.wait_for_promotion(heir)
    target.launch()
    version = source("INFO")
    if "valkey_version" not in version and version["redis_version"].startswith("7.0."):
        course.wait_until(lambda: bool(unknown_to(source) & {*slots}), "it to know nobody's slots")
    course.look()
    course.cluster.stop_moving()


def courier_killed(course: Course) -> None:
    pid = course.server.client.remote().courier
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    course.look()
    course.wait_until(lambda: course.server.client.remote().courier not in (None, pid), "a new one")


def courier_stopped(course: Course) -> None:
    """It hangs for a while."""
    pid = course.server.client.remote().courier
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        course.look()
        course.look()
    finally:
        os.kill(pid, signal.SIGCONT)


FAULTS: tuple[Fault, ...] = (
    node_killed,
    acknowledged_writes_lost,
    slots_moved,
    link_down,
    packets_dropped,
    node_stopped,
    full_and_refusing,
    full_and_evicting,
    emptied,
    all_stopped,
    courier_killed,
    # After it nothing comes from the store for up to ten seconds, while there is no news of that.
    courier_stopped,
    all_gone,
    all_back_with_old_files,
)


@contextmanager
def begun(folder: Path, seed: int, timeout: str) -> Iterator[Course]:
    """NoNetworkError where namespaces cannot be made."""
    with ExitStack() as stack:
        network = stack.enter_context(Network(6))
        cluster = stack.enter_context(Cluster(folder / "cluster", network=network))
        options = [f"--remote-url={cluster.url}", f"--remote-timeout={timeout}"]
        # All but what was used just now goes to disk, as fast as it can.
        options += ["--writeback-room=25%", "--writeback-idle=1s", "--writeback-rate=off"]
        made = RunningServer(folder, dict.fromkeys(DEVICES, SIZE), POOL, options, start=False)
        server = stack.enter_context(made)
        with network.hub.entered():
            server.start()
        course = stack.enter_context(Course(server, cluster, network, seed))
        course.wait_for_all_nodes()
        yield course


# --- the longer search ---


def search(course: Course, seconds: float) -> None:
    begun_at = time.monotonic()
    found: dict[str, list[Figures]] = {}
    before = course.figures()
    while time.monotonic() < begun_at + seconds:
        # Each once, and then again in another order.
        for fault in course.random.sample(FAULTS, len(FAULTS)):
            name = fault.__name__
            figures = course.suffer(fault)
            found.setdefault(name, []).append(figures)
            print(f"{time.monotonic() - begun_at:5.0f} s {name}: {figures}", flush=True)
            if time.monotonic() >= begun_at + seconds:
                break
    longest = max(figures.longest for each in found.values() for figures in each)
    total = course.figures().since(before)._replace(longest=longest)
    for name, each in sorted(found.items()):
        slow = statistics.median(figures.longest for figures in each)
        print(f"{name}: {len(each)} times, longest read {slow * 1000:.0f} ms (median)")
    print(f"{sum(map(len, found.values()))} faults in {time.monotonic() - begun_at:.0f} s: {total}")
    print("no page was wrong, no read failed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one")
    parser.add_argument("--timeout", default="50ms", help="how long a read waits for the store")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    # Like Ctrl-C, so that the servers go too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if server_program() is None:
        print("no Redis or Valkey is installed (Debian: redis-tools)")
        return 2
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="preswapd-cluster-") as folder:
        try:
            with begun(Path(folder), seed, given.timeout) as course:
                search(course, given.seconds)
        except NoNetworkError as error:
            print(f"a network of its own cannot be made: {error}")
            return 2
        except Exception as error:
            notes = "; ".join(getattr(error, "__notes__", []))
            print(f"seed {seed}: {type(error).__name__}: {error} {notes}", flush=True)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
