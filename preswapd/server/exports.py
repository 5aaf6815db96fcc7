# SPDX-License-Identifier: BSD-3-Clause
"""Which device a client gets, by the name that it asks for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from preswapd.block._export import Connection
from preswapd.errors import RefusedError
from preswapd.log import WARNING, Throttle
from preswapd.precache.images import Images
from preswapd.preswap.device._device import Device
from preswapd.preswap.instance import Instance
from preswapd.preswap.moving.names import READ_AT_LENGTH, Wanted, parse
from preswapd.server.buffers import LARGEST_REQUEST, Buffers, Served
from preswapd.units import format_size


class ClientCount(NamedTuple):
    """How many clients of a device came and went since the start."""

    came: int
    went: int

    @property
    def open(self) -> int:
        return self.came - self.went


class Exports:
    """The instance's devices and its images as NBD exports; they may come and go."""

    def __init__(self, instance: Instance, images: Images, buffers: Buffers) -> None:
        self.instance = instance
        self.images = images
        self.buffers = buffers
        # A client that was refused tries again and again.
        self.complaints = Throttle()
        self.too_long = Throttle()
        self.superseded = Throttle()
        self.counting = threading.Lock()
        self.clients: dict[str, ClientCount] = {}

    def names(self) -> list[str]:
        return sorted(self.instance.devices)

    def images_served(self) -> list[str]:
        return sorted(self.images.served)

    def default(self) -> str:
        """What the empty name stands for: the only device, or nothing; never an image."""
        names = self.names()
        # Whoever means one that is not served must not get another one's pages.
        return names[0] if len(names) == 1 and not self.instance.refused else ""

    def connect(self, name: str) -> Connection:
        wanted = parse(name)
        if wanted is not None:
            return self.pulled(wanted._replace(device=wanted.device or self.default()))
        image = self.images.connect(name)
        if image is not None:
            return self.admitted(image, self.images.served[name].image)
        device = self.instance.devices.get(name or self.default())
        if device is None:
            choices = ", ".join(self.names()) or "none"
            images = ", ".join(self.images_served())
            also = f", the images {images}" if images else ""
            asked = self.why_not(name)
            if self.complaints.passes():
                self.instance.log(
                    WARNING, f"a client was refused: {asked}: the devices are {choices}{also}"
                )
            raise RefusedError(asked)
        return self.admitted(self.connected(device), device)

    def connected(self, device: Device) -> Connection:
        try:
            return device.connect()
        except OSError:
            why = self.instance.transfers.why_shut(device.name)
            if self.complaints.passes():
                self.instance.log(WARNING, f"a client was refused: {why}")
            raise RefusedError(why) from None

    def pulled(self, wanted: Wanted) -> Connection:
        """Another host's server asks for a guest there: it is served whatever comes."""
        try:
            connection = self.instance.origin.connect(wanted)
        except OSError as error:
            if self.complaints.passes():
                self.instance.log(
                    WARNING, f"another host was refused {wanted.word} of {wanted.device}: {error}"
                )
            raise
        if wanted.word in READ_AT_LENGTH:
            with self.forgotten_if_it_fails(connection):
                self.buffers.admit_pulling(connection)
        return connection

    def admitted(self, connection: Connection, served: Served) -> Connection:
        with self.forgotten_if_it_fails(connection):
            try:
                self.buffers.admit(connection, served)
            except RefusedError as error:
                if self.complaints.passes():
                    why = f"a client of {connection.name} was refused: {error}"
                    self.instance.log(WARNING, why)
                raise
            self.count(connection.name, came=1)
        return connection

    @contextmanager
    def forgotten_if_it_fails(self, connection: Connection) -> Iterator[None]:
        """nbdkit calls close() only for what was opened."""
        try:
            yield
        except BaseException:
            self.buffers.leave(connection)
            connection.close()
            raise

    def why_not(self, name: str) -> str:
        if name in self.instance.refused or name in self.images.refused:
            return f"{name} is not served"
        return f"no device {name!r}" if name else "no device was named, and there is not just one"

    def tell_too_long(self, connection: Connection) -> None:
        """Of a request that was refused; its client was told how long one may be."""
        if self.too_long.passes():
            self.instance.log(
                WARNING,
                f"a client of {connection.name} asks for more than"
                f" {format_size(LARGEST_REQUEST)} at once, which is refused",
            )

    def tell_superseded(self, connection: Connection) -> None:
        """Of one that is dropped, as a newer one has changed something since."""
        if self.superseded.passes():
            self.instance.log(
                WARNING,
                f"a client of {connection.name} is cut off: one that came after it has written"
                " since; what is written to is for one client at a time",
            )

    def disconnect(self, connection: Connection) -> None:
        connection.close()
        if self.buffers.leave(connection) is not None:
            self.count(connection.name, went=1)

    def count(self, name: str, came: int = 0, went: int = 0) -> None:
        with self.counting:
            before = self.clients.get(name, ClientCount(0, 0))
            now = ClientCount(before.came + came, before.went + went)
            self.clients[name] = now
            # Here, where they are in order: of two that come and go at once the newer one's word
            # must stay.
            if name not in self.images.names and (came or not now.open):
                self.instance.note_client(name, connected=now.open > 0)
