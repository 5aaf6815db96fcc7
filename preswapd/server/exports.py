"""Which device a client gets, by the name that it asks for."""

import time

from preswapd.errors import RefusedError
from preswapd.preswap._device import Connection
from preswapd.preswap.instance import Instance
from preswapd.server.log import WARNING

# A client that was refused tries again and again.
REPEAT_SECONDS = 60.0


class Exports:
    """The instance's devices as NBD exports; devices may come and go."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.next_complaint = 0.0

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
                f"no device {name!r}" if name else "no device was named and none is the only one"
            )
            self.complain(f"a client was refused: {asked}: the devices are {choices}")
            raise RefusedError(asked)
        return device.connect()

    def complain(self, text: str) -> None:
        now = time.monotonic()
        if now >= self.next_complaint:
            self.next_complaint = now + REPEAT_SECONDS
            self.instance.log(WARNING, text)
