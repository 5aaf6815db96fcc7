# SPDX-License-Identifier: BSD-3-Clause
"""Where an instance keeps its files, and what it and its devices may be called."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from preswapd.errors import UsageError

DEFAULT_INSTANCE = "default"
CONFIG_ROOT = Path("/etc/preswapd")
SYSTEM_RUNTIME_ROOT = Path("/run/preswapd")
SYSTEM_STATE_ROOT = Path("/var/lib/preswapd")

# Its files lie beside those of instances: /etc/preswapd/governor.toml.
GOVERNOR = "governor"
INSTANCE_NAME = re.compile(rf"(?!{GOVERNOR}\Z)[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}")
# Fifteen bytes are what the label of a swap header holds.
DEVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")


def check_instance_name(name: str) -> str:
    if name == GOVERNOR:
        raise UsageError(
            f"{GOVERNOR!r} is no name for an instance: it is that of `preswapd govern`, whose"
            f" configuration is {CONFIG_ROOT / GOVERNOR}.toml"
        )
    if not INSTANCE_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not an instance name: letters, digits, '.', '_' and '-', at most 64,"
            " a letter or digit first"
        )
    return name


def check_device_name(name: str) -> str:
    if not DEVICE_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a device name: letters, digits, '.', '_' and '-', at most 15,"
            " a letter or digit first"
        )
    return name


def parse_path(text: str) -> Path:
    """An empty one, from a variable that is not set, would mean the working directory."""
    if not text:
        raise ValueError("an empty path")
    return Path(text)


@dataclass(frozen=True)
class RuntimePaths:
    """Sockets and what an operator has set; gone after a reboot of the host."""

    runtime_dir: Path

    @property
    def nbd_socket(self) -> Path:
        return self.runtime_dir / "nbd.sock"

    @property
    def control_socket(self) -> Path:
        return self.runtime_dir / "control.sock"

    @property
    def kept_settings(self) -> Path:
        """What an operator has changed while the server ran."""
        return self.runtime_dir / "tuning.json"

    @property
    def parked(self) -> Path:
        """Which devices' virtual machines `preswapctl park` has parked."""
        return self.runtime_dir / "parked.json"

    @property
    def last_start(self) -> Path:
        """How the server was started, for whoever finds that it is gone."""
        return self.runtime_dir / "start.json"


@dataclass(frozen=True)
class SharedMemoryPaths:
    """Pages in memory, and where each page is; gone after a reboot of the host."""

    shm_dir: Path

    @property
    def arena(self) -> Path:
        return self.shm_dir / "arena"

    def map(self, device: str) -> Path:
        """What each page of the device is, one byte a page."""
        return self.shm_dir / f"{device}.map"

    def client(self, device: str) -> Path:
        """There, and empty, while a client is connected to the device; a kill leaves it, and so
        does a client after that which has asked for nothing."""
        return self.shm_dir / f"{device}.client"


@dataclass(frozen=True)
class StatePaths:
    """Disk files; they stay."""

    state_dir: Path

    def disk_file(self, device: str) -> Path:
        """The disk file: pages that tmem did not take."""
        return self.state_dir / f"{device}.img"

    def saved_map(self, device: str) -> Path:
        """What each page was at the last clean stop."""
        return self.state_dir / f"{device}.map"

    def image_sums(self, image: str) -> Path:
        """Digests of what the image's file holds, and what that file was then."""
        return self.state_dir / f"{image}.sums"

    def source(self, device: str) -> Path:
        """Where the pages of a device are that came from another host."""
        return self.state_dir / f"{device}.source"

    def sidecar(self, device: str) -> Path:
        """What must be known of the device after a reboot."""
        return self.state_dir / f"{device}.json"


# The fields come in the reverse order of the bases: runtime_dir, shm_dir, state_dir.
@dataclass(frozen=True)
class InstancePaths(StatePaths, SharedMemoryPaths, RuntimePaths):
    """The three directories of an instance and the files in them."""

    @property
    def locks(self) -> tuple[Path, Path, Path]:
        return self.shm_dir / "lock", self.runtime_dir / "lock", self.state_dir / "lock"


def is_root() -> bool:
    return os.geteuid() == 0


def runtime_root() -> Path:
    """The directory that holds one runtime directory for each instance."""
    if is_root():
        return SYSTEM_RUNTIME_ROOT
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and Path(given).is_absolute():
        return Path(given) / "preswapd"
    return Path(f"/run/user/{os.geteuid()}/preswapd")


def state_root() -> Path:
    if is_root():
        return SYSTEM_STATE_ROOT
    given = os.environ.get("XDG_STATE_HOME")
    if given and Path(given).is_absolute():
        return Path(given) / "preswapd"
    try:
        return Path.home() / ".local/state/preswapd"
    except RuntimeError:
        raise UsageError(
            f"user {os.geteuid()} has no home directory: give --state-dir, or set XDG_STATE_HOME"
        ) from None


# `system`: as for root, whoever asks, for a service that does not run as root.


def default_runtime_dir(instance: str, system: bool = False) -> Path:
    return (SYSTEM_RUNTIME_ROOT if system else runtime_root()) / instance


def governor_runtime_dir(system: bool = False) -> Path:
    """Beside those of instances, among which it would look like one."""
    root = SYSTEM_RUNTIME_ROOT if system else runtime_root()
    return root.with_name(f"{root.name}-{GOVERNOR}")


def default_shm_dir(instance: str, system: bool = False) -> Path:
    # All users share /dev/shm, so an ordinary user's directory carries the user's number.
    own = "" if system or is_root() else f"{os.geteuid()}-"
    return Path(f"/dev/shm/preswapd-{own}{instance}")


def default_shm_dirs() -> dict[str, Path]:
    """What is there under such names, by instance."""
    first = default_shm_dir("")
    found = {
        path.name.removeprefix(first.name): path for path in first.parent.glob(f"{first.name}*")
    }
    return {name: path for name, path in found.items() if INSTANCE_NAME.fullmatch(name)}


def default_state_dir(instance: str, system: bool = False) -> Path:
    return (SYSTEM_STATE_ROOT if system else state_root()) / instance


def config_file(instance: str) -> Path:
    return CONFIG_ROOT / f"{instance}.toml"
