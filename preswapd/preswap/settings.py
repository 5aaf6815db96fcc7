"""What an instance is told to be; the limits that hold for any instance."""

from dataclasses import dataclass

from preswapd.codecs import COMPRESS, DEFAULT_COMPRESS
from preswapd.errors import RefusedError, UsageError
from preswapd.paths import InstancePaths
from preswapd.units import PAGE_SIZE, exact_size

SMALLEST_POOL = 4 << 20
# What an arena's slot numbers reach.
LARGEST_POOL = 128 << 30
SMALLEST_DEVICE = 64 << 10
# A swap header counts pages in 32 bits.
LARGEST_DEVICE = 16 << 40
# The arena's table has 512 entries, and the first is its head.
MOST_DEVICES = 511


@dataclass(frozen=True)
class DeviceSpec:
    """A device as it is wanted; its codec is the instance's when none is named."""

    name: str
    size: int
    compress: str | None = None


@dataclass(frozen=True)
class Settings:
    """Sizes in bytes; `host_reserve` is MemAvailable that stays untouched (None: the default)."""

    instance: str
    paths: InstancePaths
    pool_size: int
    devices: tuple[DeviceSpec, ...] = ()
    compress: str = DEFAULT_COMPRESS
    host_reserve: int | None = None
    discard_state: bool = False


def check_pool_size(size: int) -> int:
    if size < SMALLEST_POOL:
        raise UsageError(f"a pool has at least {exact_size(SMALLEST_POOL)}")
    return size


def check_device_size(size: int) -> int:
    if size < SMALLEST_DEVICE:
        raise UsageError(f"a device has at least {exact_size(SMALLEST_DEVICE)}")
    if size > LARGEST_DEVICE:
        raise UsageError(f"a device has at most {exact_size(LARGEST_DEVICE)}")
    if size % PAGE_SIZE:
        raise UsageError(f"a device's size is a multiple of {PAGE_SIZE}")
    return size


def check_number_of_devices(number: int) -> None:
    if number > MOST_DEVICES:
        raise RefusedError(f"an instance has at most {MOST_DEVICES} devices")


def check_compress(name: str) -> str:
    if name not in COMPRESS:
        raise UsageError(f"{name!r} is not a codec: the choices are {', '.join(COMPRESS)}")
    return name
