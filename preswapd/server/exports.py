# SPDX-License-Identifier: BSD-3-Clause
"""Which device a client gets, by the name that it asks for."""

import threading
from typing import NamedTuple

from preswapd.errors import RefusedError
from preswapd.log import WARNING, Throttle
from preswapd.preswap.device._device import Connection
from preswapd.preswap.instance import Instance


class ClientCount(NamedTuple):
    """How many clients of a device came and went since the start."""

    came: int
    went: int

    @property
    def open(self) -> int:
        return self.came - self.went


class Exports:
    """The instance's devices as NBD exports; devices may come and go."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        # A client that was refused tries again and again.
        self.complaints = Throttle()
        self.counting = threading.Lock()
        self.clients: dict[str, ClientCount] = {}

    def names(self) -> list[str]:
        return sorted(self.instance.devices)

    def default(self) -> str:
        """What the empty name stands for: the only device, or nothing."""
        names = self.names()
        return names[0] if len(names) == 1 else ""

    def connect(self, name: str) -> Connection:
        device = self.instance.devices.get(name or self.default())
        if device is None:
            choices = ", ".join(self.names()) or "none"
            asked = (
                f"no device {name!r}" if name else "no device was named, and there is not just one"
            )
            if self.complaints.passes():
                self.instance.log(
                    WARNING, f"a client was refused: {asked}: the devices are {choices}"
                )
            raise RefusedError(asked)
        connection = device.connect()
        self.count(device.name, came=1)
        return connection

    def disconnect(self, connection: Connection) -> None:
        connection.close()
        self.count(connection.device.name, went=1)

    def count(self, name: str, came: int = 0, went: int = 0) -> None:
        with self.counting:
            before = self.clients.get(name, ClientCount(0, 0))
            now = ClientCount(before.came + came, before.went + went)
            self.clients[name] = now
            # Here, where they are in order: of two that come and go at once the newer one's word
            # must stay.
            if came or not now.open:
                self.instance.clients.note(name, connected=now.open > 0)
