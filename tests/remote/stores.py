# SPDX-License-Identifier: BSD-3-Clause
"""Real stores for tests: one server, one with TLS, a cluster.  All are ended by process id."""

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
import redis

from tests.ports import free_port
from tests.remote.networks import Namespace, Network, address
from tests.running import PATIENCE, wait_until

HOST = "127.0.0.1"
# Of a node that has a host of its own, where nobody else can have taken them.
PORT, BUS_PORT = 6379, 16379
SLOTS = 16384
# A failover takes this long and a bit; on a busy machine a node must not be taken for dead.
NODE_TIMEOUT_MS = 2000
# The server's program, and what the same program is called in packages that start no service.
PROGRAMS = ("redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb")


def server_program() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


needs_store = pytest.mark.skipif(
    server_program() is None, reason="no Redis or Valkey is installed (Debian: redis-tools)"
)


class StoreServer:
    """One server on a port of its own, and on a Unix socket in its folder."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int | None = None,
        host: str = HOST,
        network: Namespace | None = None,
        saves: bool = False,
    ) -> None:
        """`saves`: to disk, as it does where it is not told.

        In another network than this process's its Unix socket is how it is reached from here."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.host, self.network = host, network
        self.files = ["--dir", str(folder)]
        self.files += [] if saves else ["--save", "", "--appendonly", "no"]
        self.port = port or free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    def start(self) -> Self:
        self.launch()
        wait_until(self.is_there, f"a store in {self.folder}")
        return self

    def launch(self, *, with_file: bool = False) -> None:
        """It has nothing, or what its file has: a replica keeps the one that its master sent it."""
        program = server_program()
        assert program is not None
        if not with_file:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        # It looks at its name to know what it is.
        name = "valkey-server" if "valkey" in program else "redis-server"
        listening = ["--bind", self.host, "--port", str(self.port)]
        listening += ["--unixsocket", str(self.socket)]
        # Without a password it would refuse those that come from other hosts.
        listening += ["--protected-mode", "no"] if self.network else []
        there = self.network.entered() if self.network else nullcontext()
        with (self.folder / "log").open("ab") as log, there:
            self.process = subprocess.Popen(
                [name, *listening, *self.files, *self.options],
                executable=program,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def is_there(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.socket))
            client.sendall(b"PING\r\n")
            # That a password is wanted is an answer too.
            return not client.recv(64).startswith(b"-LOADING")
        return False

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=30, **options)

    def __call__(self, *command: str | int | bytes) -> Any:
        """What it answers a command."""
        with self.client() as client:
            return client.execute_command(*command)

    # --- its end ---

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def pause(self) -> None:
        """It hangs: connections stay, and nothing is answered."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.kill()


class Cluster:
    """Masters, each with as many replicas: what `redis-cli --cluster create` makes, sooner."""

    def __init__(
        self, folder: Path, masters: int = 3, replicas: int = 1, network: Network | None = None
    ) -> None:
        """Each node at a host of the network, where there is one."""
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
        options += ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"]
        # A replica is not shown before its first ping.
        options += ["--repl-ping-replica-period", "1"]
        self.nodes = [
            StoreServer(
                folder / f"node{number}",
                *(*options, "--cluster-port", str(BUS_PORT if network else free_port())),
                port=PORT if network else None,
                host=address(number) if network else HOST,
                network=network.hosts[number] if network else None,
            )
            for number in range(masters * (1 + replicas))
        ]
        self.masters, self.replicas = self.nodes[:masters], self.nodes[masters:]

    @property
    def url(self) -> str:
        return "redis://" + ",".join(f"{node.host}:{node.port}" for node in self.masters)

    def start(self) -> None:
        for node in self.nodes:
            node.launch()
        wait_until(lambda: all(node.is_there() for node in self.nodes), "a cluster's nodes")
        for epoch, node in enumerate(self.nodes):
            node("CLUSTER", "SET-CONFIG-EPOCH", epoch + 1)
        share = -(-SLOTS // len(self.masters))
        for number, node in enumerate(self.masters):
            last = min((number + 1) * share, SLOTS) - 1
            node("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        first = self.nodes[0]
        for node in self.nodes[1:]:
            node("CLUSTER", "MEET", first.host, first.port, bus_port(first))
        wait_until(lambda: all(map(self._knows_all, self.nodes)), "the nodes to know each other")
        for number, node in enumerate(self.replicas):
            node("CLUSTER", "REPLICATE", node_id(self.masters[number % len(self.masters)]))
        wait_until(lambda: all(map(self._is_ready, self.nodes)), "the cluster")

    def _knows_all(self, node: StoreServer) -> bool:
        return len(node("CLUSTER", "NODES").splitlines()) == len(self.nodes)

    def _is_ready(self, node: StoreServer) -> bool:
        state = node("CLUSTER", "INFO")
        shown = node("CLUSTER", "SLOTS")
        per_master = 1 + len(self.replicas) // len(self.masters)
        return "ok" in str(state) and all(len(each) == 2 + per_master for each in shown)

    # --- who is what now ---

    def pairs(self) -> list[tuple[StoreServer, StoreServer]]:
        """Masters that have slots, each with a replica; of a whole cluster."""
        seen = seen_by(self.nodes[0])
        by_id = {node_id(node): node for node in self.nodes}
        return [
            (by_id[each.id], by_id[next(other.id for other in seen if other.master == each.id)])
            for each in seen
            if each.has_slots
        ]

    def is_whole(self) -> bool:
        """All see the same: each slot has a master and stays there, and each master has a replica
        that has all."""
        views = [seen_by(node) for node in self.nodes]
        roles = {frozenset((each.id, each.master) for each in view) for view in views}
        if len(roles) > 1 or any(each.has_failed for view in views for each in view):
            return False
        if self.lost_slots(views) or self.moving_slots(views):
            return False
        masters = {each.id for each in views[0] if each.has_slots}
        followed = {each.master for each in views[0] if each.master}
        states = [text(node("CLUSTER", "INFO")) for node in self.nodes]
        links = [node("INFO", "replication").get("master_link_status", "up") for node in self.nodes]
        return (
            masters == followed
            and all("cluster_state:ok" in state for state in states)
            and all(link == "up" for link in links)
        )

    def lost_slots(self, views: list[list["Seen"]]) -> set[int]:
        """That no node takes for its own, or that one of them takes for nobody's."""
        own = set().union(*(each.slots for view in views for each in view if each.is_myself))
        known = [set().union(*(each.slots for each in view)) for view in views]
        return set(range(SLOTS)) - own.intersection(*known)

    def moving_slots(self, views: list[list["Seen"]]) -> set[int]:
        return set().union(*(each.moving for view in views for each in view))

    def stop_moving(self) -> None:
        """What is on its way stays where it is, as after `redis-cli --cluster fix`."""
        for node in self.nodes:
            for slot in self.moving_slots([seen_by(node)]):
                node("CLUSTER", "SETSLOT", slot, "STABLE")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for node in self.nodes:
            node.kill()


class Seen(NamedTuple):
    """A node of a cluster, as one of them sees it."""

    id: str
    flags: list[str]
    master: str | None
    slots: frozenset[int]
    # On their way to it, or from it.  A node tells of its own alone.
    moving: frozenset[int]

    @property
    def has_slots(self) -> bool:
        return bool(self.slots)

    @property
    def is_myself(self) -> bool:
        return "myself" in self.flags

    @property
    def has_failed(self) -> bool:
        return not {"fail", "fail?", "handshake", "noaddr"}.isdisjoint(self.flags)


def seen_by(node: StoreServer) -> list[Seen]:
    lines = [line.split() for line in text(node("CLUSTER", "NODES")).splitlines()]
    return [
        Seen(
            *(id_, flags.split(","), None if master == "-" else master),
            slots_in(each for each in ranges if not each.startswith("[")),
            # "[93-<-ID]" or "[93->-ID]"
            frozenset(int(each[1:].partition("-")[0]) for each in ranges if each.startswith("[")),
        )
        for id_, _, flags, master, _, _, _, _, *ranges in lines
    ]


def seen_as_itself(node: StoreServer) -> Seen:
    return next(each for each in seen_by(node) if each.is_myself)


def slots_in(ranges: Iterable[str]) -> frozenset[int]:
    """Of "0-5460" and "7000"."""
    found: set[int] = set()
    for first, _, last in (each.partition("-") for each in ranges):
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def bus_port(node: StoreServer) -> int:
    return int(node.options[-1])


def node_id(node: StoreServer) -> str:
    return text(node("CLUSTER", "MYID"))


def text(answer: Any) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)
