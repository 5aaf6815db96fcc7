# SPDX-License-Identifier: BSD-3-Clause
"""A store of three nodes on this host, a cluster without replicas, and what befalls it."""

import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import redis

from preswapd.guest.faults import SetupError
from preswapd.host.children import Child

HOST = "127.0.0.1"
SLOTS = 16384
NODES = 3
START_SECONDS = 30.0
# The server's program, and what the same program is called in packages that start no service.
PROGRAMS = ("redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb")
# A cache is there as far as its nodes are, and one that is lost costs no other.
OPTIONS = (
    *("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"),
    *("--save", "", "--appendonly", "no", "--bind", HOST),
)
ROOM, NO_ROOM = "0", "2mb"


class Node:
    def __init__(self, program: Path, folder: Path) -> None:
        self.port, self.bus = free_port(), free_port()
        self.program = program
        self.folder = folder
        folder.mkdir()
        self.child: Child | None = None

    def start(self) -> None:
        ports = ("--port", str(self.port), "--cluster-port", str(self.bus))
        place = ("--dir", str(self.folder), "--unixsocket", str(self.folder / "socket"))
        self.child = Child([str(self.program), *ports, *place, *OPTIONS])
        self.child.watch(self.answers, START_SECONDS)

    def answers(self) -> bool | None:
        with suppress(OSError, redis.RedisError):
            return bool(self("PING"))
        return None

    def __call__(self, *command: str | int) -> Any:
        with redis.Redis(unix_socket_path=str(self.folder / "socket")) as client:
            return client.execute_command(*command)

    def is_ready(self) -> bool | None:
        """Knows who has which slots."""
        state = self("CLUSTER", "INFO")
        known = len(self("CLUSTER", "SLOTS")) == NODES
        return True if known and "ok" in str(state) else None

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child = None

    def signal(self, number: int) -> None:
        assert self.child is not None
        self.child.send_signal(number)


class Cluster:
    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "redis://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    @property
    def version(self) -> str:
        info = self.nodes[0]("INFO", "server")
        return str(info.get("valkey_version") or info["redis_version"])

    def join(self) -> None:
        share = -(-SLOTS // NODES)
        first, *others = self.nodes
        for number, node in enumerate(self.nodes):
            node("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            last = min((number + 1) * share, SLOTS) - 1
            node("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for node in others:
            node("CLUSTER", "MEET", HOST, first.port, first.bus)
        self.wait()

    def wait(self) -> None:
        for node in self.nodes:
            assert node.child is not None
            node.child.watch(node.is_ready, START_SECONDS)

    def empty(self) -> None:
        for node in self.nodes:
            node("FLUSHALL")

    def limit(self, memory: str) -> None:
        for node in self.nodes:
            node("CONFIG", "SET", "maxmemory", memory)

    def cut(self) -> None:
        """Connections stay, and nothing comes over them, as where packets are dropped."""
        for node in self.nodes:
            if node.child is not None:
                node.signal(signal.SIGSTOP)

    def mend(self) -> None:
        """Whatever befell it is over; nodes that were killed are empty."""
        for node in self.nodes:
            if node.child is None:
                node.start()
            node.signal(signal.SIGCONT)
        self.wait()
        self.limit(ROOM)


@contextmanager
def store() -> Iterator[Cluster]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="preswapd-store-")))
        found = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if found is None:
            raise SetupError("no Redis or Valkey is installed (Debian: redis-tools)")
        # It looks at its name to know what it is.
        program = folder / ("valkey-server" if "valkey" in found else "redis-server")
        program.symlink_to(found)
        cluster = Cluster([Node(program, folder / str(number)) for number in range(NODES)])
        for node in cluster.nodes:
            stack.callback(node.kill)
            node.start()
        cluster.join()
        yield cluster


def free_port() -> int:
    """None of those that Linux gives to clients (32768 to 60999), or one could come before us."""
    while True:
        port = secrets.choice(range(10_000, 32_768))
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
