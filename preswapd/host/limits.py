# SPDX-License-Identifier: BSD-3-Clause
"""A shell's limits are not a server's: as far as it may, it takes them away (setrlimit(2))."""

import resource
import signal
from contextlib import suppress

# Below it not even the descriptors that are kept through exec have room.
FEWEST_DESCRIPTORS = 128
# What a thread's stack is by default; one that is much smaller overflows, one that is much larger
# is taken for each thread of each client.
STACK_BYTES = 8 << 20
RAISED = (
    # As many clients as are allowed at all: when descriptors run out, nbdkit accepts no operator
    # either, and logs that it cannot in an endless loop.
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_AS,
    resource.RLIMIT_DATA,
    resource.RLIMIT_CPU,
    resource.RLIMIT_NPROC,
)


def raise_limits() -> int:
    """As high as this process may; the number of files that it may have open then."""
    for which in RAISED:
        _, most = resource.getrlimit(which)
        change(which, most, most)
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    stack = STACK_BYTES if most == resource.RLIM_INFINITY else min(STACK_BYTES, most)
    change(resource.RLIMIT_STACK, stack, most)
    # A file that may not grow is an error of that write, and not the end of the server.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return files


def change(which: int, now: int, most: int) -> None:
    """A sandbox may forbid it: then the limit stays as it is."""
    with suppress(OSError, ValueError):
        resource.setrlimit(which, (now, most))
