# SPDX-License-Identifier: BSD-3-Clause
"""What the shell offers at TAB: at once, and nothing where nobody answers."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from preswapd.cli.instances import Instances
from preswapd.commandline import DEVICE, INSTANCE
from preswapd.errors import PreswapError
from preswapd.paths import runtime_root

# Who waits this long for a server that hangs has typed the name by hand.
PATIENCE_SECONDS = 1.0


def suggest(kind: str, instances: Instances, *, new: bool) -> list[str]:
    """Names of what there is; for something `new`, no name that is taken."""
    with suppress(PreswapError, OSError), limited(PATIENCE_SECONDS):
        if kind == DEVICE.name and not new:
            return device_names(instances)
        if kind == INSTANCE.name:
            return sorted(path.name for path in runtime_root().iterdir())
    return []


def device_names(instances: Instances) -> list[str]:
    return sorted({name for found in instances.running() for name in found.client.devices()})


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TimeoutError when it takes longer than that."""

    def expired(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
