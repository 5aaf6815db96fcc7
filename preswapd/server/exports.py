"""Which device a client gets, by the name that it asks for."""

from preswapd.errors import RefusedError
from preswapd.preswap._device import Connection
from preswapd.preswap.instance import Instance


class Exports:
    """The instance's devices as NBD exports; devices may come and go."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

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
            raise RefusedError(f"{asked}: the devices are {choices}")
        return device.connect()
