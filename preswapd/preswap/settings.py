# SPDX-License-Identifier: BSD-3-Clause
"""What an instance and its devices are started with; each field has its setting's name."""

from dataclasses import dataclass
from shlex import quote

from preswapd.api.kinds import OFF
from preswapd.codecs import DEFAULT_COMPRESS
from preswapd.errors import RefusedError
from preswapd.paths import InstancePaths, default_runtime_dir

# The arena's table has 512 entries, and the first is its head.
MOST_DEVICES = 511


@dataclass(frozen=True)
class DeviceSpec:
    """A device as it is wanted; its codec is the instance's when none is named, and without a quota
    all of its pages may be in tmem."""

    name: str
    size: int
    compress: str | None = None
    quota: int | None = None  # pages


@dataclass(frozen=True)
class Settings:
    """Sizes in bytes; `host_reserve` is MemAvailable that stays untouched, `shm_reserve` what stays
    free in the file system of shared memory (None: the default).

    What is `OFF` or `AUTO` is that word here; `policy.py` says what it means.  `refuse_touched`: a
    device whose disk file was changed is not opened, as that would give up what is in it.
    """

    instance: str
    paths: InstancePaths
    pool_size: int
    devices: tuple[DeviceSpec, ...] = ()
    compress: str = DEFAULT_COMPRESS
    host_reserve: int | None = None
    shm_reserve: int | None = None
    writeback_room: float = 0.05  # share of the pool's limit
    writeback_idle: int | str = OFF  # seconds
    writeback_rate: int | str = 32 << 20  # bytes a second
    recompress_after: int | str = 600  # seconds
    recompress_codec: str = "zstd"
    discard_state: bool = False
    accept_moved: bool = False
    refuse_touched: bool = False

    @property
    def operator(self) -> str:
        """How an operator's command begins that is meant for this instance."""
        usual = {default_runtime_dir(self.instance, system) for system in (False, True)}
        if self.paths.runtime_dir in usual:
            return f"preswapctl --instance {self.instance}"
        return f"preswapctl --runtime-dir {quote(str(self.paths.runtime_dir))}"


def check_number_of_devices(number: int) -> None:
    if number > MOST_DEVICES:
        raise RefusedError(f"an instance can have at most {MOST_DEVICES} devices")
