# SPDX-License-Identifier: BSD-3-Clause
"""The settings that an operator may change while the server runs, as sysctl(8) does the kernel's.

A change outlives restarts and crashes of the server and ends when the host restarts, as the
kernel's do.  What is to stay for good belongs in the configuration; the text "default" brings back
what that says.
"""

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from preswapd.api.kinds import LARGEST_POOL, OFF
from preswapd.api.settings import (
    DEFAULT,
    DEVICE,
    INSTANCE,
    NO_LIMIT,
    POLICY,
    Place,
    Setting,
    said_in,
)
from preswapd.errors import RefusedError, UsageError
from preswapd.host.filesystems import is_there, total_bytes
from preswapd.preswap.device._device import Device
from preswapd.preswap.files.durable import write_file
from preswapd.preswap.policy import Policy
from preswapd.preswap.settings import Settings
from preswapd.tmem import Host
from preswapd.units import exact_size

BOOT_ID = "boot_id"


@dataclass(frozen=True)
class Effect:
    """What a setting does: its value in force, how another one takes effect, and the default."""

    get: Callable[[], Any]
    set: Callable[[Any], None]  # UsageError when it cannot be
    default: Callable[[], Any]


@dataclass(frozen=True)
class Changeable:
    """A setting of this instance or of one of its devices."""

    setting: Setting
    effect: Effect

    def shown(self) -> int | str:
        return self.setting.kind.to_sysctl(self.effect.get())

    def change(self, text: str) -> None:
        """ValueError or UsageError for a bad value, which changes nothing."""
        parse = self.setting.kind.parse
        self.effect.set(self.effect.default() if text == DEFAULT else parse(text))


class Tier(Protocol):
    """The remote tier, as far as an operator switches it."""

    enabled: bool


class Sysctl:
    """The settings of one instance and its devices, by key."""

    def __init__(
        self, settings: Settings, host: Host, pool: int, remote: Tier | None = None
    ) -> None:
        self.settings = settings
        self.host = host
        self.pool = pool
        self.remote = remote
        self.path = settings.paths.kept_settings
        self.frozen = False
        # What an operator lets the pool take, and what the governor does: the lower one holds.
        self.pool_size = settings.pool_size
        self.governed: int | str = OFF
        # The settings of the start, and what was changed of them that `policy` follows.
        self.wanted = settings
        self.policy = Policy()
        self.policy.follow(settings)
        self.quotas: dict[str, int] = {}
        # Not by name: a shrink may outlive its device, and another one may be made under its name.
        self.held_down: dict[Device, int] = {}
        self.limiting = threading.Lock()
        self.changed: dict[str, str] = {}
        self.not_kept: str | None = None  # why the next start would not know of it
        configured = ((spec.name, spec.compress) for spec in settings.devices)
        self.configured = {name: codec for name, codec in configured if codec is not None}
        quotas = ((spec.name, spec.quota) for spec in settings.devices)
        self.configured_quotas = {name: pages for name, pages in quotas if pages is not None}

    # --- what there is ---

    def values(self, devices: Mapping[str, Device]) -> dict[str, int | str]:
        return {key: found.shown() for key, found in self.all(devices).items()}

    def all(self, devices: Mapping[str, Device]) -> dict[str, Changeable]:
        effects = {
            "remote": self.remote_tier(),
            "pool-limit": self.pool_limit(),
            "governed-limit": self.governed_limit(),
            "frozen": self.freezing(),
        }
        effects |= {setting.name: self.of_policy(setting.parameter) for setting in POLICY}
        found = self.by_key(INSTANCE, effects)
        for device in devices.values():
            found.update(self.of_device(device))
        return found

    def of_device(self, device: Device) -> dict[str, Changeable]:
        effects = {"compress": self.compress(device), "quota": self.quota(device)}
        return self.by_key(DEVICE, effects, device.name)

    def by_key(
        self, settings: Iterable[Setting], effects: Mapping[str, Effect], device: str | None = None
    ) -> dict[str, Changeable]:
        rows = said_in(Place.SYSCTL, settings)
        names = [setting.name for setting in rows]
        assert sorted(names) == sorted(effects), f"an effect for each of {names}, see all()"
        return {
            setting.sysctl_key(self.settings.instance, device): Changeable(
                setting, effects[setting.name]
            )
            for setting in rows
        }

    def pool_limit(self) -> Effect:
        def change(size: int) -> None:
            most = min(total_bytes(self.settings.paths.shm_dir) or LARGEST_POOL, LARGEST_POOL)
            if size > most:
                raise UsageError(f"the shared memory holds no more than {exact_size(most)}")
            # Since it was enlarged it holds more than the arena has addresses for.
            if size > self.host.largest_limit:
                raise RefusedError(
                    "the shared memory was smaller when the server was started: to use what was"
                    " added since, restart the server, which loses no page, and set it again"
                )
            self.pool_size = size
            self.limit_pool()

        return Effect(lambda: self.pool_size, change, lambda: self.settings.pool_size)

    def governed_limit(self) -> Effect:
        """However large: it takes nothing from what pool_limit refuses."""

        def change(size: int | str) -> None:
            self.governed = size
            self.limit_pool()

        return Effect(lambda: self.governed, change, lambda: OFF)

    def limit_pool(self) -> None:
        governed = self.governed if isinstance(self.governed, int) else self.pool_size
        self.host.limit = min(self.pool_size, governed)
        # What needs no page to go is free before anybody asks how many must.
        self.host.maintain()

    @property
    def is_governed(self) -> bool:
        """Whether the governor's limit is the one in force."""
        return isinstance(self.governed, int) and self.governed < self.pool_size

    def freezing(self) -> Effect:
        def change(frozen: bool) -> None:
            self.host.freeze(self.pool, frozen)
            self.frozen = frozen

        return Effect(lambda: self.frozen, change, lambda: False)

    def remote_tier(self) -> Effect:
        remote = self.remote

        def change(used: bool) -> None:
            if remote is not None:
                remote.enabled = used
            elif used:
                raise UsageError("no store is in use: see url in [remote], and the server's log")

        return Effect(
            lambda: remote is not None and remote.enabled, change, lambda: remote is not None
        )

    def of_policy(self, parameter: str) -> Effect:
        def change(value: Any) -> None:
            self.wanted = replace(self.wanted, **{parameter: value})
            self.policy.follow(self.wanted)

        return Effect(
            lambda: getattr(self.wanted, parameter),
            change,
            lambda: getattr(self.settings, parameter),
        )

    def compress(self, device: Device) -> Effect:
        def change(codec: str) -> None:
            device.compress = codec

        configured = self.configured.get(device.name, device.configured_compress)
        return Effect(lambda: device.compress, change, lambda: configured)

    def quota(self, device: Device) -> Effect:
        def change(pages: int) -> None:
            with self.limiting:
                self.quotas[device.name] = pages
                self.limit(device)

        return Effect(lambda: self.quota_of(device), change, lambda: self.configured_quota(device))

    def quota_of(self, device: Device) -> int:
        return self.quotas.get(device.name, self.configured_quota(device))

    def configured_quota(self, device: Device) -> int:
        return self.configured_quotas.get(device.name, NO_LIMIT)

    def keep_quota(self, device: Device) -> None:
        """Of a device that is served from now on."""
        with self.limiting:
            self.limit(device)

    def hold_down(self, device: Device, pages: int) -> None:
        """While a shrink runs: no more pages of the device in tmem, whatever its quota says."""
        with self.limiting:
            self.held_down[device] = pages
            self.limit(device)

    def let_go(self, device: Device) -> None:
        with self.limiting:
            self.held_down.pop(device, None)
            self.limit(device)

    def limit(self, device: Device) -> None:
        """The lower of both limits.  Under `limiting`: a quota may be set while a shrink ends."""
        device.max_pages = min(self.quota_of(device), self.held_down.get(device, NO_LIMIT))

    # --- changing ---

    def set(self, key: str, text: str, devices: Mapping[str, Device]) -> int | str:
        """The new value.  UsageError for an unknown key or a bad value; nothing is changed then.

        It is in force also where it cannot be kept, as `not_kept` says afterwards: whoever freezes
        a pool or lowers a limit needs the memory now.
        """
        known = self.all(devices)
        if key not in known:
            raise UsageError(f"unknown key {key!r}: the choices are {', '.join(known)}")
        found = known[key]
        try:
            found.change(text)
        except (ValueError, UsageError) as error:
            raise UsageError(f"{key}: {error}") from None
        self.changed[key] = text
        if text == DEFAULT:
            del self.changed[key]
        self.keep()
        return found.shown()

    def set_compress(self, device: Device, codec: str) -> None:
        of_it = self.of_device(device)
        [key] = (key for key, found in of_it.items() if found.setting.name == "compress")
        self.set(key, codec, {device.name: device})

    def forget(self, device: Device) -> None:
        """The device was removed; another one of its name begins with the defaults."""
        self.quotas.pop(device.name, None)
        # Not all keys that begin like its own: those of a device "g1.x" begin like those of "g1".
        gone = self.of_device(device)
        kept = {key: text for key, text in self.changed.items() if key not in gone}
        if kept != self.changed:
            self.changed = kept
            self.keep()

    def keep(self) -> None:
        """For the next start; to be called again where it was `not_kept`."""
        whole = {BOOT_ID: self.host.boot_id, **self.changed}
        try:
            write_file(self.path, json.dumps(whole, indent=1).encode() + b"\n")
            self.not_kept = None
        except OSError as error:
            self.not_kept = f"{self.path}: {error.strerror}"

    def is_kept(self) -> bool:
        """Also False where somebody has removed the file, or its directory."""
        return self.not_kept is None and (not self.changed or is_there(self.path))

    # --- the start ---

    def restore(self, devices: Mapping[str, Device], refused: Iterable[str] = ()) -> list[str]:
        """What was changed before a restart, over the configuration; complaints.

        What was changed of devices that are `refused` now is kept for when they are served.
        """
        for device in devices.values():
            device.compress = self.configured.get(device.name, device.compress)
            self.keep_quota(device)
        try:
            found = read(self.path)
        except (OSError, ValueError) as error:
            return [f"{self.path} is ignored: {error}"]
        # A runtime directory on a disk keeps the file when the host restarts.
        if found.pop(BOOT_ID, self.host.boot_id) != self.host.boot_id:
            return []
        complaints = []
        known = self.all(devices)
        later = {
            setting.sysctl_key(self.settings.instance, name)
            for setting in said_in(Place.SYSCTL, DEVICE)
            for name in refused
        }
        for key, text in found.items():
            if key in later:
                self.changed[key] = text
                continue
            try:
                known[key].change(text)
                self.changed[key] = text
            except KeyError:
                complaints.append(f"{self.path}: {key} is ignored: there is no such setting")
            except (ValueError, UsageError, RefusedError) as error:
                complaints.append(f"{self.path}: {key} is ignored: {error}")
        return complaints


def read(path: Path) -> dict[str, str]:
    if not is_there(path):
        return {}
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict) or any(type(value) is not str for value in found.values()):
        raise ValueError("it is damaged")
    return found
