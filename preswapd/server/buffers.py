# SPDX-License-Identifier: BSD-3-Clause
"""The memory that clients' requests may take beside the pool: bounded, and kept free for them.

nbdkit takes it without asking, and in a memory cgroup without room the process would be killed. So
the pool does not grow into what the clients there are may still come to take.
"""

import time
from collections.abc import Callable

from preswapd.errors import RefusedError
from preswapd.precache.image import _image
from preswapd.preswap.device import _device
from preswapd.preswap.instance import Instance
from preswapd.preswap.writeback.shrink import Shrink
from preswapd.units import format_size

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


class Buffers:
    """What the worker threads hold, and what they may still come to hold."""

    def __init__(self, instance: Instance, threads: int, received: Callable[[], int]) -> None:
        """`received`: bytes of nbdkit's buffers."""
        self.instance = instance
        self.host = instance.host
        self.client_bytes = threads * WORKER_BYTES
        self.received = received
        self.expected_until = 0.0  # another client; time.monotonic()

    def held(self) -> int:
        """The server's own threads, which are few, have such buffers for the disk too."""
        return self.received() + _device.transfer_buffers() + _image.transfer_buffers()

    def keep_room(self, clients: int) -> None:
        """For the clients there are, and for the first one before it comes."""
        if time.monotonic() < self.expected_until:
            clients += 1
        self.host.set_aside(max(max(clients, 1) * self.client_bytes - self.held(), 0))

    def take_for_expected(self) -> None:
        """One that has others beside it has come: it is not to be counted twice."""
        self.expected_until = 0.0

    def make_room(self) -> Shrink | None:
        """For one that has come, and that keep_room() knows of: where a cgroup has too little, the
        pool gives memory back.  Waits for it, but not for long."""
        shrink = self.instance.fit_cgroup()
        if shrink is not None:
            shrink.ended.wait(PATIENCE_SECONDS)
        return shrink

    def check_room(self) -> None:
        """The same, for one that has others beside it: RefusedError where there is no room."""
        shrink = self.make_room()
        owed = self.host.owed()
        room, limiter = self.host.room()
        if limiter is not None:
            room = self.client_bytes - min(owed, self.client_bytes)
        if room < self.client_bytes:
            if shrink is not None and not shrink.ended.is_set():
                self.expected_until = time.monotonic() + EXPECTED_SECONDS
            raise RefusedError(
                f"another client may take {format_size(self.client_bytes)} of memory, and"
                f" {limiter or 'this host'} allows {format_size(room)} more"
            )
