# SPDX-License-Identifier: BSD-3-Clause
"""What the shell offers at TAB: at once, and nothing where nobody answers."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from preswapd.api.client import Client
from preswapd.cli.instances import Instances, all_exports, all_images
from preswapd.commandline import DEVICE, EXPORT, IMAGE, INSTANCE, MACHINE, SYSCTL_KEY
from preswapd.errors import PreswapError
from preswapd.paths import INSTANCE_NAME, runtime_root

# Who waits this long for a server that hangs has typed the name by hand.
PATIENCE_SECONDS = 1.0


def suggest(kind: str, instances: Instances, *, new: bool) -> list[str]:
    """Names of what there is; for something `new`, no name that is taken."""
    found: set[str] = set()
    with suppress(PreswapError, OSError), limited(PATIENCE_SECONDS):
        for name in names(kind, instances, new):
            found.add(name)
    return sorted(found)


def names(kind: str, instances: Instances, new: bool) -> Iterator[str]:
    if kind == DEVICE.name and not new:
        yield from of_all(instances, Client.devices)
    elif kind == IMAGE.name:
        yield from of_all(instances, lambda client: all_images(client.stats()))
    elif kind == EXPORT.name:
        yield from of_all(instances, lambda client: all_exports(client.stats()))
    elif kind == SYSCTL_KEY.name:
        yield from of_all(instances, Client.sysctl)
    elif kind == MACHINE.name:
        yield from of_all(instances, Client.devices)
        yield from names(INSTANCE.name, instances, new)
    elif kind == INSTANCE.name:
        found = (path.name for path in runtime_root().iterdir())
        yield from (name for name in found if INSTANCE_NAME.fullmatch(name))


def of_all(instances: Instances, question: Callable[[Client], Iterable[str]]) -> Iterator[str]:
    """What those say that answer in time: one that hangs does not keep the others from it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    running = instances.running()
    for number, found in enumerate(running):
        left = (deadline - time.monotonic()) / (len(running) - number)
        if left <= 0:
            return
        with suppress(PreswapError, OSError):
            yield from question(Client(found.client.socket_path, left))


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
