# SPDX-License-Identifier: BSD-3-Clause
"""Hosts on a wire of their own, which can be cut: network namespaces, joined by a bridge.

They have no names, and go with the process that made them and those that it started there.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

CLONE_NEWNET = 0x40000000
# Of this thread: others of the process stay where they are.
MINE = "/proc/thread-self/ns/net"
PREFIX = "10.77.0."
HUB, FIRST = 1, 10  # hosts' numbers in it
BRIDGE = "wire"

LIBC = ctypes.CDLL(None, use_errno=True)


class NoNetworkError(Exception):
    """Such a network cannot be made here: why."""


def checked(what: str, result: int) -> None:
    if result:
        error = ctypes.get_errno()
        raise NoNetworkError(f"{what}: {os.strerror(error)}")


def ip(*words: str) -> None:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NoNetworkError("the command ip is not installed (Debian: iproute2)") from None
    if done.returncode:
        raise NoNetworkError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def and_back() -> Iterator[None]:
    """Wherever this thread goes meanwhile."""
    own = os.open(MINE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        checked("going back to the network", LIBC.setns(own, CLONE_NEWNET))
        os.close(own)


class Namespace:
    """A network that nothing is in but itself."""

    def __init__(self) -> None:
        with and_back():
            checked("a network namespace", LIBC.unshare(CLONE_NEWNET))
            self.descriptor = os.open(MINE, os.O_RDONLY | os.O_CLOEXEC)
            ip("link", "set", "lo", "up")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, is there."""
        with and_back():
            checked("entering a network", LIBC.setns(self.descriptor, CLONE_NEWNET))
            yield

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def close(self) -> None:
        os.close(self.descriptor)


class Network:
    """Some hosts, and `hub`, from where all of them are reached.  NoNetworkError."""

    def __init__(self, hosts: int) -> None:
        self.stack = ExitStack()
        try:
            self.hub = self._namespace()
            with self.hub.entered():
                ip("link", "add", BRIDGE, "type", "bridge")
                ip("addr", "add", f"{PREFIX}{HUB}/24", "dev", BRIDGE)
                ip("link", "set", BRIDGE, "up")
            self.hosts = [self._host(number) for number in range(hosts)]
        except BaseException:
            self.stack.close()
            raise

    def _namespace(self) -> Namespace:
        made = Namespace()
        self.stack.callback(made.close)
        return made

    def _host(self, number: int) -> Namespace:
        host = self._namespace()
        with self.hub.entered():
            ends = [plug(number), "type", "veth", "peer", "name", "eth0", "netns", host.path]
            ip("link", "add", *ends)
        with host.entered():
            ip("addr", "add", f"{address(number)}/24", "dev", "eth0")
            ip("link", "set", "eth0", "up")
        self.mend(number)
        return host

    # --- what happens to them ---

    def unplug(self, number: int) -> None:
        """Its link is down, as both ends see."""
        with self.hub.entered():
            ip("link", "set", plug(number), "down")

    def drop(self, number: int) -> None:
        """Its link is up, and all packets vanish."""
        with self.hub.entered():
            ip("link", "set", plug(number), "nomaster")

    def mend(self, number: int) -> None:
        with self.hub.entered():
            ip("link", "set", plug(number), "master", BRIDGE, "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()


def address(number: int) -> str:
    return f"{PREFIX}{FIRST + number}"


def plug(number: int) -> str:
    return f"plug{number}"
