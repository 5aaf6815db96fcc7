# SPDX-License-Identifier: BSD-3-Clause
"""A server whose pages were moved to a slow disk, and are in the store too."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from benchmarks import load
from benchmarks.host_usage import cpu_seconds
from benchmarks.images.disks import disk_of_its_own
from benchmarks.remote.cluster import Cluster
from benchmarks.servers import DISKS, Running, folders, prepare, preswapd, started
from benchmarks.storing import START
from preswapd.api.client import Client, RunningShrink
from preswapd.guest.faults import SetupError
from preswapd.units import PAGE_SIZE

# QEMU has as many requests under way; nbdkit before 1.33.10 gets one thread where nobody asks.
THREADS = 16
# Of a network volume, or of a few hard disks.
REQUESTS = 3000
# Pages that leave at once: what the courier does not take as fast is not set.
AT_ONCE = 512
STEADY_SECONDS = 0.03
START_SECONDS = 30.0
# What comes later.
MORE, MORE_PAGES = "more", 4096


class Swapped:
    def __init__(self, serving: Running, cluster: Cluster, size: int, limited: bool) -> None:
        """`size`: bytes of pages, which begin where a load has them.  `limited`: the disk is."""
        assert serving.server.control is not None
        self.serving = serving
        self.cluster = cluster
        self.size = size
        self.limited = limited
        self.client = Client(serving.folder / serving.server.control)

    # --- what is where ---

    def fill(self, at_once: int = AT_ONCE) -> None:
        """All pages are on disk, and those of them in the store that it takes."""
        self.use_store(True)
        self.take_all_in()
        self.move_out(at_once)

    def take_all_in(self) -> None:
        self.thaw()
        load.fio(self.serving.uri, load.FILL, None, str(self.size))
        self.freeze()

    def move_out(self, at_once: int = AT_ONCE) -> None:
        """All that is in memory now is on disk, and in the store as far as it takes it."""
        self.freeze()
        for left in range(self.client.preswap_pages() - at_once, -at_once, -at_once):
            self.shrink(max(left, 0))
            self.wait_for_sets()

    def freeze(self) -> None:
        """What is read from disk would come back to memory."""
        self.serving.settle()
        self.client.set("preswap.default.frozen", "1")

    def thaw(self) -> None:
        self.client.set("preswap.default.frozen", "0")

    def shrink(self, pages: int) -> None:
        with self.client.shrink(pages) as moving:
            wait_for_shrink(moving)

    def take_in(self, pages: int) -> None:
        """So many more lie in memory, of another disk."""
        self.thaw()
        uri = f"nbd+unix:///{MORE}?socket={self.serving.folder / self.serving.server.socket}"
        load.fio(uri, load.Load(MORE, "write", "--bs=128k", 4), None, str(pages * PAGE_SIZE))
        self.freeze()

    def wait_for_sets(self) -> None:
        before, now = -1, self.remote()["remote_sets"]
        while now != before:
            time.sleep(STEADY_SECONDS)
            before, now = now, self.remote()["remote_sets"]

    @property
    def stored(self) -> float:
        """The share of all pages that the store has, as far as the server knows."""
        return float(self.remote()["remote_pages"]) / (self.size / PAGE_SIZE)

    @property
    def reads(self) -> int:
        """Pages read so far that were not in memory."""
        return int(self.serving.device()["disk_reads"]) + self.reads_of_store

    @property
    def reads_of_store(self) -> int:
        return int(self.remote()["remote_reads"])

    def use_store(self, used: bool) -> None:
        self.client.set("vm.remote", str(int(used)))

    # --- what it costs ---

    def remote(self) -> dict[str, Any]:
        return dict(self.client.stats()["remote"])

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time so far, of each who has a part in a read but its client."""
        courier = self.client.remote().courier
        nodes = [node.child.pid for node in self.cluster.nodes if node.child is not None]
        return {
            "server": cpu_seconds(self.serving.process),
            "courier": cpu_seconds(courier) if courier else 0.0,
            "nodes": sum(map(cpu_seconds, nodes)),
        }

    def wait_for_store(self) -> None:
        """Asked again, and found well."""
        deadline = time.monotonic() + START_SECONDS
        while self.remote()["remote_nodes_up"] < len(self.cluster.nodes):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the store is not found: {self.client.remote().store}")
            time.sleep(STEADY_SECONDS)


def wait_for_shrink(moving: RunningShrink) -> None:
    moving.wait(lambda step: None)


@contextmanager
def swapped(
    cluster: Cluster,
    size: int,
    *options: str,
    program: str | None = None,
    written: int | None = None,
) -> Iterator[Swapped]:
    """With a disk of REQUESTS a second, where there can be one, that takes so many bytes a second.

    `program`: another `preswapd`.
    """
    more = MORE_PAGES * PAGE_SIZE
    server = preswapd(
        "lz4",
        pool=str(2 * size + more),
        size=str(size + 2 * START),
        options=(
            *(f"--threads={THREADS}", f"--remote-url={cluster.url}"),
            *(f"--device={MORE}={more + 2 * START}", *options),
        ),
    )
    if program is not None:
        server = replace(server, command=(program, *server.command[1:]))
    with ExitStack() as stack:
        memory, disk = stack.enter_context(folders())
        limited = True
        try:
            disk = stack.enter_context(disk_of_its_own(2 * size + more, DISKS, REQUESTS, written))
        except SetupError:
            limited = False
        prepare(server, memory, disk)
        serving = stack.enter_context(started(server, memory, disk))
        found = Swapped(serving, cluster, size, limited)
        found.wait_for_store()
        yield found
