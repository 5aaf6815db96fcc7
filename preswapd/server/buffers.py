# SPDX-License-Identifier: BSD-3-Clause
"""The memory that clients' requests may take beside the pool: bounded, and kept free for them.

nbdkit takes it without asking, and in a memory cgroup without room the process would be killed. So
the pool does not grow into what the clients there are may still come to take.
"""

import threading
import time
from collections.abc import Callable

from preswapd.block._export import Connection
from preswapd.errors import RefusedError
from preswapd.precache.image import _image
from preswapd.preswap.device import _device
from preswapd.preswap.device._device import Device
from preswapd.preswap.instance import Instance
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.units import format_size

# What a client is one of.
Served = Device | _image.Image

# What a client is told of as the largest request, and what is refused above it: each worker thread
# keeps a buffer of its longest one.  A guest's kernel writes up to 1280K at once, or a huge page of
# 2M; QEMU splits what is longer.
LARGEST_REQUEST = 2 << 20
# Besides, each worker has a MiB for the disk file (O_DIRECT), the codec's state and its stack.
WORKER_BYTES = LARGEST_REQUEST + (1 << 20) + (256 << 10)
# How long a client waits for the pool to give back what its cgroup has too little of: QEMU would
# wait longer, but a disk that is slow must not keep a guest out.
PATIENCE_SECONDS = 5.0
# One that was refused meanwhile comes again: QEMU after 1, 2, 4, 8 and 16 s.  What the pool gives
# back for it is to be there then.
EXPECTED_SECONDS = 20.0
# Between two looks whether a cgroup has become too small: its files take some 20 µs each.  At most,
# after pages have left and it was of no use, as they were charged to another cgroup, or an operator
# has stopped it: else all would leave in an hour, some MiB a minute.
LOOK_SECONDS = 5.0
LONGEST_LOOK_SECONDS = 3600.0


class Buffers:
    """What the worker threads hold and may still come to hold, by who is connected.

    nbdkit's threads open and close connections at once.
    """

    def __init__(self, instance: Instance, threads: int, received: Callable[[], int]) -> None:
        """`received`: bytes of nbdkit's buffers."""
        self.instance = instance
        self.host = instance.host
        self.client_bytes = threads * WORKER_BYTES
        self.received = received
        self.counting = threading.Lock()
        # What each is a client of, in the order in which they came; None: of a device, as another
        # host's server that pulls.
        self.clients: dict[Connection, Served | None] = {}
        # Of refused clients that will try again: the name of the export, and until when room is
        # kept for it (time.monotonic()).
        self.expected: list[tuple[str, float]] = []
        # The look whether a cgroup has become too small, and what the last one has begun.
        self.next_look = 0.0
        self.pause = LOOK_SECONDS
        self.was_owed = False
        self.fit: Shrink | None = None

    def admit(self, connection: Connection, served: Served) -> None:
        """Waits until what a client may take is there, but not for long.  RefusedError where it is
        not there; what is served has its first client whatever comes, as that is its guest."""
        with self.counting:
            self.clients[connection] = served
            expected = next((one for one in self.expected if one[0] == connection.name), None)
            if expected is not None:
                self.expected.remove(expected)
        self.keep_room()
        is_made = self.make_room()
        # By now others' threads may hold what was only set aside for them before.
        self.keep_room()
        lacking = self.lacking()
        if lacking is not None and self.refuses(connection, is_expected=not is_made):
            self.keep_room()
            raise RefusedError(lacking)

    def refuses(self, connection: Connection, is_expected: bool) -> bool:
        """It is a client no more, if one that came before it is still there."""
        with self.counting:
            served = self.clients[connection]
            for one, what in self.clients.items():
                if one is connection:
                    return False
                if what is served:
                    break
            del self.clients[connection]
            if is_expected:
                self.expected.append((connection.name, time.monotonic() + EXPECTED_SECONDS))
            return True

    def admit_pulling(self, connection: Connection) -> None:
        """It is served whatever comes, and at once."""
        with self.counting:
            self.clients[connection] = None
        self.keep_room()
        self.instance.fit_cgroup(self.keep_room)

    def leave(self, connection: Connection) -> Served | None:
        """What it was a client of."""
        with self.counting:
            served = self.clients.pop(connection, None)
        self.keep_room()
        return served

    def look(self) -> None:
        """To be called about once a second.  Room goes also where a limit is lowered, or to others
        in the same cgroup; but what they use for a moment ends by itself."""
        self.keep_room()
        now = time.monotonic()
        if now < self.next_look:
            return
        was_owed, self.was_owed = self.was_owed, self.host.owed() > 0
        if self.fit is not None and self.fit.has_ended_short and self.was_owed:
            self.pause = min(2 * self.pause, LONGEST_LOOK_SECONDS)
        else:
            self.pause = LOOK_SECONDS
        self.next_look = now + self.pause
        if was_owed and self.was_owed:
            self.fit = self.instance.fit_cgroup(self.keep_room) or self.fit

    def keep_room(self) -> int:
        """To be called now and then, as what threads hold grows: nothing else gets what clients may
        still come to take, or reads from other hosts, or saves and restores.  Returns what these
        may take in all, in bytes; where there is no client, it is as much as for one."""
        with self.counting:
            now = time.monotonic()
            self.expected = [(name, end) for name, end in self.expected if end > now]
            promised = max(len(self.clients) + len(self.expected), 1) * self.client_bytes
            others = self.instance.moves.may_take() + self.instance.transfers.may_take()
            self.host.set_aside(max(promised - self.held(), 0) + others)
        return promised + others

    def held(self) -> int:
        """The server's own threads, which are few, have such buffers for the disk too."""
        return self.received() + _device.transfer_buffers() + _image.transfer_buffers()

    def make_room(self) -> bool:
        """Where a cgroup has too little, the pool gives memory back.  False: it takes too long."""
        end = time.monotonic() + PATIENCE_SECONDS
        # One that was under way already may have been for less.
        while (shrink := self.instance.fit_cgroup(self.keep_room)) is not None:
            if not shrink.ended.wait(max(end - time.monotonic(), 0)):
                return False
        return True

    def lacking(self) -> str | None:
        """For one more client, in words."""
        owed = self.host.owed()
        room, limiter = self.host.room()
        if limiter is not None:
            room = self.client_bytes - min(owed, self.client_bytes)
        if room >= self.client_bytes:
            return None
        return (
            f"another client may take {format_size(self.client_bytes)} of memory, and"
            f" {limiter or 'this host'} allows {format_size(room)} more"
        )
