# SPDX-License-Identifier: BSD-3-Clause
"""Who is counted as a client that may take memory, and who is refused for lack of it."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from preswapd.block._export import Connection
from preswapd.errors import RefusedError
from preswapd.precache.images import Images
from preswapd.preswap import opening
from preswapd.preswap.moving.link import CONNECTIONS
from preswapd.preswap.moving.names import LIFE, READ_AT_LENGTH, Wanted
from preswapd.preswap.moving.pull import READ_BYTES
from preswapd.preswap.saves.transfers import STUCK, TRANSFER_BYTES
from preswapd.preswap.settings import DeviceSpec
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.server import buffers
from preswapd.server.buffers import LONGEST_LOOK_SECONDS, LOOK_SECONDS, Buffers, Served
from preswapd.server.exports import Exports
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.network import three_hosts
from tests.preswap.running import MIB, Running
from tests.tmem.test_headroom import Group

THREADS = 4
TURNS = 20
A_MOMENT = 0.002
# What is kept to the last, see headroom.c.
LAST = 8 * MIB
DEVICES = ("g1", "g2")


class Server(NamedTuple):
    """Of two devices, in a cgroup that others are charged for too."""

    running: Running
    group: Group
    buffers: Buffers

    def allow(self, clients: int, more: int = 0) -> None:
        """Room for so many, and for `more` bytes of pages."""
        pool = self.running.instance.host.stats()["mem_used_total"]
        room = clients * self.buffers.client_bytes + more
        self.group.say(max=LAST + pool + room, current=pool)

    def client(self, name: str) -> Connection:
        device = self.running.instance.devices[name]
        connection = device.connect()
        try:
            self.buffers.admit(connection, device)
        except RefusedError:
            connection.close()
            raise
        return connection

    def leave(self, connection: Connection) -> None:
        connection.close()
        self.buffers.leave(connection)

    @property
    def counted(self) -> int:
        return self.buffers.keep_room() // self.buffers.client_bytes


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with ExitStack() as stack:
        running = stack.enter_context(
            Running(tmp_path, [DeviceSpec(name, MIB) for name in DEVICES])
        )
        group = Group(running.paths.shm_dir.parent / "group")
        group.say(max=1024 * MIB, high="max", current=0, stat="inactive_file 0")
        monkeypatch.setattr(opening, "memory_files", lambda: [group.files])
        # Of all threads of this process, also of those that give memory back meanwhile.
        monkeypatch.setattr(Buffers, "held", lambda buffers: buffers.received())
        yield Server(running, group, Buffers(running.open(), THREADS, lambda: 0))


def test_first_one_is_counted_before_it_comes(server: Server) -> None:
    assert server.counted == 1
    first = server.client("g1")
    assert server.counted == 1
    second = server.client("g2")
    assert server.counted == 2
    for client in (first, second):
        server.leave(client)
    assert server.counted == 1


def test_further_one_needs_room_and_a_first_one_none(server: Server) -> None:
    server.allow(clients=1)
    server.client("g1")
    with pytest.raises(RefusedError, match="another client may take 13M of memory, and "):
        server.client("g1")
    assert server.counted == 1
    server.client("g2")
    assert server.counted == 2


class Slow(dict[Connection, Served | None]):
    """A thread that has looked at it is held up before it can do anything."""

    def items(self) -> Any:
        found = list(super().items())
        time.sleep(A_MOMENT)
        return found


def at_once(*works: Callable[[], None]) -> None:
    begin = threading.Barrier(len(works))

    def after_all_have_begun(work: Callable[[], None]) -> None:
        begin.wait()
        work()

    threads = [threading.Thread(target=after_all_have_begun, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_two_that_come_at_once_one_is_the_first(server: Server) -> None:
    server.buffers.clients = Slow()
    server.allow(clients=1)
    for _ in range(TURNS):
        admitted: list[Connection] = []

        def come(admitted: list[Connection] = admitted) -> None:
            with suppress(RefusedError):
                admitted.append(server.client("g1"))

        at_once(come, come)
        assert len(admitted) == 1
        server.leave(admitted[0])


def test_room_is_kept_whatever_comes_and_goes_at_once(server: Server) -> None:
    """Also while the server looks at it, once a second, and is held up when it has counted."""

    def received() -> int:
        time.sleep(random.uniform(0, A_MOMENT))
        return 0

    def look() -> None:
        server.buffers.keep_room()

    server.buffers.received = received
    for _ in range(TURNS):
        server.allow(clients=6)
        goes, stays = server.client("g1"), server.client("g2")
        come: list[Connection] = []
        at_once(
            lambda goes=goes: server.leave(goes),  # type: ignore[misc]
            lambda come=come: come.append(server.client("g1")),  # type: ignore[misc]
            look,
        )
        # Nobody has looked since.
        server.allow(clients=2, more=-1)
        assert server.running.instance.host.owed() == 1
        for client in (*come, stays):
            server.leave(client)


def test_one_whose_opening_fails_is_not_counted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(promised: Callable[[], int]) -> None:
        raise OSError("no luck")

    instance = server.running.instance
    images = Images(instance.host, [], "lz4", lambda level, text: None, lambda: set())
    exports = Exports(instance, images, server.buffers)
    kept = exports.connect("g1")
    monkeypatch.setattr(instance, "fit_cgroup", fail)
    with pytest.raises(OSError, match="no luck"):
        exports.connect("g2")
    assert server.counted == 1
    assert instance.devices["g2"].connections == 0
    exports.disconnect(kept)


def test_of_those_who_wait_the_one_that_came_first_is_the_guest(server: Server) -> None:
    """And one whose old connection ends while it waits has become the first."""
    server.allow(clients=1)
    device = server.running.device
    old, guest, other = (device.connect() for _ in range(3))
    begun: list[Connection] = []

    def fit(promised: Callable[[], int]) -> None:
        """Called by each that waits: the next one comes, and so on; the oldest one leaves."""
        for each in (guest, other):
            if each not in begun:
                begun.append(each)
                admit(each)
        server.buffers.leave(old)

    def admit(connection: Connection) -> None:
        with suppress(RefusedError):
            server.buffers.admit(connection, device)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server.running.instance, "fit_cgroup", fit)
        admit(old)
    assert list(server.buffers.clients) == [guest]


def test_what_threads_take_meanwhile_is_theirs(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client waits, and another one's workers take of what was set aside for them."""
    server.allow(clients=2)
    taken = []

    def fit(promised: Callable[[], int]) -> None:
        pool = server.running.instance.host.stats()["mem_used_total"]
        taken.append(MIB)
        server.group.say(current=pool + sum(taken))

    server.client("g1")
    server.buffers.received = lambda: sum(taken)
    monkeypatch.setattr(server.running.instance, "fit_cgroup", fit)
    server.client("g1")
    assert server.counted == 2


def test_fit_that_was_for_less_is_followed_by_another(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fit:
        ended = threading.Event()

    Fit.ended.set()
    fits = [Fit, Fit]
    monkeypatch.setattr(
        server.running.instance, "fit_cgroup", lambda promised: fits.pop() if fits else None
    )
    assert server.buffers.make_room()
    assert not fits


def test_host_that_pulls_makes_no_guest_a_further_client(server: Server) -> None:
    server.allow(clients=1)
    device = server.running.device
    pulling = device.connect()
    server.buffers.admit_pulling(pulling)
    guest = server.client("g1")
    assert server.counted == 2
    pulling.close()
    assert server.buffers.leave(pulling) is None
    guest.close()
    assert server.buffers.leave(guest) is device
    assert server.buffers.leave(guest) is None


def test_pages_leave_for_a_host_that_pulls(server: Server) -> None:
    server.running.connect().pwrite(random.Random(5).randbytes(200 * PAGE), 10 * PAGE)
    server.allow(clients=2, more=-MIB // 2)
    pulling = [server.running.device.connect() for _ in range(2)]
    for each in pulling:
        server.buffers.admit_pulling(each)
    server.running.fitted()
    assert any("shrink to fit memory.max" in line for line in server.running.log)
    assert server.running.device.preswap_pages < 150


def test_room_is_kept_for_what_is_read_from_another_host() -> None:
    with three_hosts() as network:
        instance = network.hosts["b"].instance
        counted = Buffers(instance, THREADS, lambda: 0)
        before = counted.keep_room()
        network.announce("b", "a")
        assert counted.keep_room() == before
        guest = network.hosts["b"].connect()
        guest.pwrite(bytes(PAGE), 6 * PAGE)
        assert counted.keep_room() == before + CONNECTIONS * READ_BYTES
        pull = instance.moves.pulls["g1"]
        pull.thread = threading.current_thread()
        assert counted.keep_room() == before + (CONNECTIONS + 1) * READ_BYTES
        pull.turn()
        assert counted.keep_room() == before + READ_BYTES
        pull.thread = None
        assert counted.keep_room() == before
        guest.close()


def test_question_of_another_host_takes_no_room() -> None:
    with three_hosts() as network:
        instance = network.hosts["a"].instance
        images = Images(instance.host, [], "lz4", lambda level, text: None, lambda: set())
        counted = Buffers(instance, THREADS, lambda: 0)
        exports = Exports(instance, images, counted)
        exports.disconnect(exports.connect(Wanted("g1", LIFE).export))
        asked = exports.connect(Wanted("g1", LIFE).export)
        assert not counted.clients
        exports.disconnect(asked)
        network.announce("b", "a")
        note = network.hosts["b"].instance.moves.pulls["g1"].link
        for word in READ_AT_LENGTH:
            reading = exports.connect(note.named(word))
            assert list(counted.clients) == [reading]
            exports.disconnect(reading)
            assert not counted.clients


def test_pages_leave_when_a_limit_is_lowered(server: Server) -> None:
    """Or others in the cgroup take more: also where no client comes."""
    server.running.connect().pwrite(random.Random(5).randbytes(200 * PAGE), 10 * PAGE)
    assert looked(server) is None
    server.allow(clients=1, more=-MIB // 2)
    # It may be for a moment.
    assert looked(server) is None
    assert looked(server) is not None
    server.running.fitted()
    assert server.running.device.preswap_pages < 150


def looked(server: Server) -> Shrink | None:
    """What has begun at the next look, whenever that is due."""
    server.buffers.next_look = 0.0
    server.buffers.look()
    return server.running.instance.shrinks.under_way()


def test_pages_leave_ever_more_slowly_where_that_is_of_no_use(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are charged to another cgroup."""

    class Useless:
        has_ended_short = True

    server.allow(clients=1, more=-MIB)
    monkeypatch.setattr(server.running.instance, "fit_cgroup", lambda promised: Useless)
    pauses = []
    for _ in range(20):
        looked(server)
        pauses.append(server.buffers.pause)
    assert pauses[:5] == [LOOK_SECONDS, LOOK_SECONDS, *(LOOK_SECONDS * 2**n for n in (1, 2, 3))]
    assert pauses[-1] == LONGEST_LOOK_SECONDS
    server.allow(clients=1)
    looked(server)
    assert server.buffers.pause == LOOK_SECONDS


def test_clients_of_a_device_that_was_removed_still_count(server: Server) -> None:
    """They hold what they have received, and the new device of that name has a guest of its own."""
    old, bystander = server.client("g1"), server.client("g2")
    instance = server.running.instance
    instance.remove("g1", force=True)
    assert server.counted == 2
    instance.create("g1", MIB)
    server.allow(clients=2)
    guest = server.client("g1")
    assert server.counted == 3
    for client in (old, bystander, guest):
        server.leave(client)
    assert server.counted == 1


# --- who is to come again ---


@pytest.fixture
def refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A further client of g1 was, while the pool still gave memory back for it."""
    # There are enough pages for what a client may take.
    monkeypatch.setattr(server.buffers, "client_bytes", MIB // 2)
    client = server.client("g1")
    server.client("g2")
    client.pwrite(random.Random(5).randbytes(200 * PAGE), 10 * PAGE)
    server.allow(clients=2)
    monkeypatch.setattr(buffers, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(RefusedError):
        server.client("g1")
    server.running.fitted()
    monkeypatch.setattr(buffers, "PATIENCE_SECONDS", 5.0)
    server.group.say(max=1024 * MIB)
    return server


def test_refused_one_is_counted_once_it_is_there_or_to_come(refused: Server) -> None:
    assert refused.counted == 3
    again = refused.client("g1")
    assert refused.counted == 3
    refused.leave(again)
    assert refused.counted == 2


def test_others_do_not_take_what_is_kept_for_it(refused: Server) -> None:
    other = refused.client("g2")
    assert refused.counted == 4
    refused.leave(other)
    assert refused.counted == 3


def test_each_that_was_refused_is_to_come_again(refused: Server) -> None:
    """As several guests of one image may be."""
    refused.buffers.expected *= 2
    assert refused.counted == 4
    again = [refused.client("g1") for _ in range(3)]
    assert refused.counted == 5
    for client in again:
        refused.leave(client)


def test_one_that_comes_as_the_first_is_the_one(refused: Server) -> None:
    """Its old connection has ended meanwhile."""
    old = next(iter(refused.buffers.clients))
    refused.leave(old)
    assert refused.counted == 2
    refused.client("g1")
    assert refused.counted == 2


def test_nobody_waits_for_it_for_ever(refused: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.monotonic() + buffers.EXPECTED_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert refused.counted == 2


def test_room_is_kept_for_saves(server: Server) -> None:
    transfers = server.running.instance.transfers
    before = server.buffers.keep_room()
    with transfers.save("g1"):
        assert server.buffers.keep_room() == before + TRANSFER_BYTES
        with transfers.save("g2"):
            assert server.buffers.keep_room() == before + 2 * TRANSFER_BYTES
        # Of one that cannot be undone nothing is held any more.
        transfers.under_way["g2"] = STUCK
        assert server.buffers.keep_room() == before + TRANSFER_BYTES
        del transfers.under_way["g2"]
    assert server.buffers.keep_room() == before
