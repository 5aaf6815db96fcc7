# SPDX-License-Identifier: BSD-3-Clause
"""The configuration: files and options, merged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from preswapd.api.settings import INSTANCE, START, Place, said_in
from preswapd.errors import UsageError
from preswapd.paths import (
    DEFAULT_INSTANCE,
    InstancePaths,
    config_file,
    default_runtime_dir,
    default_shm_dir,
    default_state_dir,
)
from preswapd.preswap.settings import DeviceSpec, Settings
from preswapd.server.config.files import DEVICE_TABLE, ConfigFiles, with_drop_ins
from preswapd.server.config.toml_lines import At
from preswapd.units import exact_size

DEFAULT = "default"

# Values of settings by `Setting.parameter`; nothing where nobody said one.
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Config:
    """What `preswapd serve` serves, and how; `origin` finds out where a value came from."""

    settings: Settings
    threads: int | None = None
    listen: str | None = None
    origin: Callable[[At], str | None] = field(default=lambda at: None, compare=False, repr=False)


def load(
    config: Path | None = None,
    devices: Sequence[DeviceSpec] = (),
    discard_state: bool = False,
    accept_moved: bool = False,
    **options: Any,
) -> Config:
    """Options win over files, later files over earlier ones, and all over the defaults.

    `options` are those of settings, by `Setting.parameter`; None where nothing was said.
    """
    given = {parameter: value for parameter, value in options.items() if value is not None}
    path = config or config_file(given.get("instance", DEFAULT_INSTANCE))
    files = with_drop_ins(path, required=config is not None)
    values = merge(files, given)
    if "pool_size" not in values:
        raise UsageError(f"the pool needs a size: give --pool-size, or pool-size in {path}")
    instance = values.setdefault("instance", DEFAULT_INSTANCE)
    settings = Settings(
        paths=merge_paths(instance, values),
        devices=merge_devices(files.devices(), devices),
        discard_state=discard_state,
        accept_moved=accept_moved,
        **fields_of(Settings, values),
    )
    return Config(settings, origin=lambda at: origin(at, files, given), **fields_of(Config, values))


def merge(files: ConfigFiles, given: Values) -> dict[str, Any]:
    values = {
        setting.parameter: files.values[setting.at]
        for setting in said_in(Place.FILE, INSTANCE)
        if setting.at in files.values
    }
    before, wanted = values.get("instance"), given.get("instance")
    if None not in (before, wanted) and before != wanted:
        place = files.place(("instance",))
        raise UsageError(f"--instance is {wanted}, but {place} says {before}")
    return {**values, **given}


def fields_of(kind: type[Settings] | type[Config], values: Values) -> dict[str, Any]:
    """The values for the class's fields, each of which has its setting's name."""
    return {each.name: values[each.name] for each in fields(kind) if each.name in values}


def origin(at: At, files: ConfigFiles, given: Values) -> str:
    """Where a value came from: FILE:LINE, the option, or the default."""
    if at[0] == DEVICE_TABLE:
        return files.place(at) or "--device"
    name = "-".join(at)
    return f"--{name}" if name.replace("-", "_") in given else files.place(at) or DEFAULT


def merge_paths(instance: str, values: Values) -> InstancePaths:
    merged = [
        values.get("runtime_dir", default_runtime_dir(instance)).absolute(),
        values.get("shm_dir", default_shm_dir(instance)).absolute(),
        values.get("state_dir", default_state_dir(instance)).absolute(),
    ]
    if len(set(merged)) < len(merged):
        raise UsageError("runtime-dir, shm-dir and state-dir must be three different directories")
    return InstancePaths(*merged)


def merge_devices(
    configured: dict[str, DeviceSpec], given: Sequence[DeviceSpec]
) -> tuple[DeviceSpec, ...]:
    """A device named in both places must be the same in both."""
    devices = dict(configured)
    for spec in given:
        before = devices.setdefault(spec.name, spec)
        if before.size != spec.size:
            raise UsageError(
                f"the device {spec.name} is given twice, with {exact_size(before.size)} and"
                f" {exact_size(spec.size)}"
            )
    return tuple(devices.values())


def in_force(config: Config) -> dict[str, Any]:
    """The value of every setting of the instance, by `Setting.parameter`."""
    values = {**vars(config), **vars(config.settings), **vars(config.settings.paths)}
    return {
        setting.parameter: values[setting.parameter]
        for setting in INSTANCE
        if setting.places & START
    }
