"""What an instance is told to be: configuration files and options, merged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preswapd.codecs import DEFAULT_COMPRESS
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
from preswapd.server.config.files import ConfigFiles, with_drop_ins
from preswapd.server.config.keys import DEVICE_TABLE, KEYS
from preswapd.server.config.toml_lines import At
from preswapd.units import exact_size

DEFAULT = "default"


@dataclass(frozen=True)
class Config:
    """Everything that `preswapd serve` goes by; `origin` finds out where a value came from."""

    settings: Settings
    threads: int | None = None
    listen: str | None = None
    origin: Callable[[At], str | None] = field(default=lambda at: None, compare=False, repr=False)


@dataclass(frozen=True)
class Options:
    """What was said on the command line; None where nothing was."""

    config: Path | None = None
    instance: str | None = None
    runtime_dir: Path | None = None
    shm_dir: Path | None = None
    state_dir: Path | None = None
    pool_size: int | None = None
    host_reserve: int | None = None
    devices: tuple[DeviceSpec, ...] = ()
    compress: str | None = None
    threads: int | None = None
    listen: str | None = None
    discard_state: bool = False


def load(options: Options) -> Config:
    """Options win over files, later files over earlier ones, and all over the defaults."""
    files = find_files(options)
    values = dict(files.values)
    for name in KEYS:
        given = getattr(options, name.replace("-", "_"))
        if name == "instance" and None not in (given, values.get(name)) and given != values[name]:
            raise UsageError(
                f"--instance is {given}, but {files.place((name,))} says {values[name]}"
            )
        if given is not None:
            values[name] = given
    if "pool-size" not in values:
        raise UsageError(
            f"the pool needs a size: give --pool-size, or pool-size in {file_of(options)}"
        )
    instance = values.get("instance", DEFAULT_INSTANCE)
    return Config(
        Settings(
            instance=instance,
            paths=merge_paths(instance, values),
            pool_size=values["pool-size"],
            devices=merge_devices(files.devices(), options.devices),
            compress=values.get("compress", DEFAULT_COMPRESS),
            host_reserve=values.get("host-reserve"),
            discard_state=options.discard_state,
        ),
        threads=values.get("threads"),
        listen=values.get("listen"),
        origin=lambda at: origin(at, options, files),
    )


def file_of(options: Options) -> Path:
    return options.config or config_file(options.instance or DEFAULT_INSTANCE)


def find_files(options: Options) -> ConfigFiles:
    """The file that was named, or the instance's own where there is one, with its drop-ins."""
    return with_drop_ins(file_of(options), required=options.config is not None)


def origin(at: At, options: Options, files: ConfigFiles) -> str:
    """Where a value came from: FILE:LINE, the option, or the default."""
    if at[0] == DEVICE_TABLE:
        return files.place(at) or "--device"
    (name,) = at
    if getattr(options, name.replace("-", "_")) is not None:
        return f"--{name}"
    return files.place(at) or DEFAULT


def merge_paths(instance: str, values: Mapping[str, Any]) -> InstancePaths:
    merged = [
        (values.get("runtime-dir") or default_runtime_dir(instance)).absolute(),
        (values.get("shm-dir") or default_shm_dir(instance)).absolute(),
        (values.get("state-dir") or default_state_dir(instance)).absolute(),
    ]
    if len(set(merged)) < len(merged):
        raise UsageError("runtime-dir, shm-dir and state-dir are three different directories")
    return InstancePaths(*merged)


def merge_devices(
    configured: dict[str, DeviceSpec], given: tuple[DeviceSpec, ...]
) -> tuple[DeviceSpec, ...]:
    """A device named in both places must be the same in both."""
    devices = dict(configured)
    for spec in given:
        before = devices.setdefault(spec.name, spec)
        if before.size != spec.size:
            raise UsageError(
                f"the device {spec.name} is named twice, with {exact_size(before.size)} and"
                f" {exact_size(spec.size)}"
            )
    return tuple(devices.values())
