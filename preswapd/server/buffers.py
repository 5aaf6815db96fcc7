# SPDX-License-Identifier: BSD-3-Clause
"""The memory that clients' requests may take beside the pool: bounded, and kept free for them.

nbdkit takes it without asking, and in a memory cgroup without room the process would be killed. So
the pool does not grow into what the clients there are may still come to take.
"""

from collections.abc import Callable

from preswapd.errors import RefusedError
from preswapd.preswap.instance import Instance
from preswapd.units import format_size

# What a client is told of as the largest request, and what is refused above it: each worker thread
# keeps a buffer of its longest one.  A guest's kernel writes up to 1280K at once, or a huge page of
# 2M; QEMU splits what is longer.
LARGEST_REQUEST = 2 << 20
# Besides, each worker has a MiB for the disk file (O_DIRECT), the codec's state and its stack.
WORKER_BYTES = LARGEST_REQUEST + (1 << 20) + (256 << 10)


class Buffers:
    """What the worker threads hold (`held`), and what they may still come to hold."""

    def __init__(self, instance: Instance, threads: int, held: Callable[[], int]) -> None:
        self.host = instance.host
        self.client_bytes = threads * WORKER_BYTES
        self.held = held

    def keep_room(self, clients: int) -> None:
        """For the clients there are, and for the first one before it comes."""
        self.host.set_aside(max(max(clients, 1) * self.client_bytes - self.held(), 0))

    def check_room(self) -> None:
        """RefusedError when there is no room for another client."""
        room, limiter = self.host.room()
        if room < self.client_bytes:
            raise RefusedError(
                f"another client may take {format_size(self.client_bytes)} of memory, and"
                f" {limiter or 'this host'} allows {format_size(room)} more"
            )
