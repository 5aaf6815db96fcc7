# SPDX-License-Identifier: BSD-3-Clause
"""Instances in this process that reach each other as servers do over NBD, without a socket.

Nothing is pulled in the background: a test takes each turn of it.
"""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from preswapd.block._export import Connection
from preswapd.preswap.moving import link, pull
from preswapd.preswap.moving.client import AwayError, NoExportError, Place
from preswapd.preswap.moving.names import parse
from preswapd.preswap.moving.pull import Pull
from tests.preswap.running import MIB, Running


class Network:
    """`hosts` by their name in URIs; one is away while its server does not run, or if it is in
    `cut_off`."""

    def __init__(self) -> None:
        self.hosts: dict[str, Running] = {}
        self.cut_off: set[str] = set()

    def uri(self, host: str, device: str = "g1") -> str:
        return f"nbd://{host}/{device}"

    def reached(self, place: Place) -> Running:
        assert isinstance(place.address, tuple)
        host = place.address[0]
        running = self.hosts[host]
        if running.opened is None or host in self.cut_off:
            raise AwayError("nobody answers")
        return running

    def announce(self, to: str, source: str) -> None:
        self.hosts[to].instance.create("g1", MIB, source=self.uri(source), force=True)

    @contextmanager
    def up(self) -> Iterator["Network"]:
        def client(place: Place, export: str, seconds: float) -> LocalClient:
            return LocalClient(self, place, export)

        with ExitStack() as stack:
            for module in (link, pull):
                stack.enter_context(patch.object(module, "Client", client))
            stack.enter_context(patch.object(link, "AWAY_SECONDS", 0.0))
            stack.enter_context(patch.object(Pull, "start", lambda self: None))
            yield self


@contextmanager
def three_hosts() -> Iterator[Network]:
    """Hosts a, b and c, each with a device g1 of a MiB."""
    with ExitStack() as stack:
        made = stack.enter_context(Network().up())
        for name in "abc":
            tmp = stack.enter_context(tempfile.TemporaryDirectory(prefix="preswapd-test-"))
            made.hosts[name] = stack.enter_context(Running(Path(tmp)))
            made.hosts[name].open()
        yield made


class LocalClient:
    """As moving.client.Client."""

    def __init__(self, network: Network, place: Place, export: str) -> None:
        self.network = network
        self.place = place
        running = network.reached(place)
        self.instance = running.instance
        wanted = parse(export)
        assert wanted is not None
        try:
            self.connection: Connection = running.instance.origin.connect(wanted)
        except OSError as error:
            raise NoExportError(str(error)) from None
        self.size = self.connection.size

    def read(self, offset: int, count: int, seconds: float) -> bytes:
        running = self.network.reached(self.place)
        if running.opened is not self.instance:
            raise AwayError("it has hung up")
        into = bytearray(count)
        try:
            self.connection.pread(into, offset)
        except OSError as error:
            # What nbdkit makes of it.
            known = {errno.ESHUTDOWN, errno.EINVAL}
            number = error.errno if error.errno in known else errno.EIO
            raise OSError(number, os.strerror(number or errno.EIO)) from None
        return bytes(into)

    def close(self) -> None:
        self.connection.close()
