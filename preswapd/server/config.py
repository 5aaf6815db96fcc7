"""What an instance is told to be: the configuration file and the options, merged and checked."""

import ipaddress
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preswapd.codecs import DEFAULT_COMPRESS
from preswapd.errors import PreswapError, UsageError
from preswapd.paths import (
    DEFAULT_INSTANCE,
    InstancePaths,
    check_device_name,
    check_instance_name,
    config_file,
    default_runtime_dir,
    default_shm_dir,
    default_state_dir,
)
from preswapd.preswap.settings import (
    DeviceSpec,
    Settings,
    check_compress,
    check_device_size,
    check_pool_size,
)
from preswapd.server.toml_lines import line_of
from preswapd.units import exact_size, parse_size

MOST_THREADS = 256


@dataclass(frozen=True)
class Config:
    """Everything that `preswapd serve` goes by."""

    settings: Settings
    threads: int | None = None
    listen: str | None = None


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


# --- single values, as the options and the file give them ---


def pool_size(text: str) -> int:
    return check_pool_size(parse_size(text))


def device_size(text: str) -> int:
    return check_device_size(parse_size(text))


def device(text: str) -> DeviceSpec:
    """NAME=SIZE"""
    name, equals, size = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not a device: write it as NAME=SIZE, like swap0=4G")
    return DeviceSpec(check_device_name(name), device_size(size))


def threads(number: int) -> int:
    if not 1 <= number <= MOST_THREADS:
        raise ValueError(f"{number} threads: from 1 to {MOST_THREADS} are possible")
    return number


def listen(text: str) -> str:
    host, port = split_address(text)
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(
            f"{text!r} can be reached from other hosts, which needs TLS: only loopback addresses"
            " are served (127.0.0.1:PORT)"
        )
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is not a port")
    return text


def split_address(text: str) -> tuple[str, int]:
    """ADDR:PORT, an IPv6 address in brackets."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    try:
        ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        return "127.0.0.1" if host == "localhost" else host, int(port)
    except ValueError:
        raise ValueError(f"{text!r} is not ADDR:PORT, like 127.0.0.1:10809") from None


# --- the file ---


def text_value(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text in quotes is expected")
    return value


def size_value(parse: Callable[[str], int]) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError('a size is expected, like "512M"')
        return parse(str(value))

    return read


def path_value(value: Any) -> Path:
    path = Path(text_value(value))
    if not path.is_absolute() or "\0" in value:
        raise ValueError(f"{value!r} is not an absolute path")
    return path


def threads_value(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("a number is expected")
    return threads(value)


KEYS: Mapping[str, Callable[[Any], Any]] = {
    "instance": lambda value: check_instance_name(text_value(value)),
    "runtime-dir": path_value,
    "shm-dir": path_value,
    "state-dir": path_value,
    "pool-size": size_value(pool_size),
    "host-reserve": size_value(parse_size),
    "compress": lambda value: check_compress(text_value(value)),
    "threads": threads_value,
    "listen": lambda value: listen(text_value(value)),
}
DEVICE_TABLE = "device"
DEVICE_KEYS: Mapping[str, Callable[[Any], Any]] = {
    "size": size_value(device_size),
    "compress": lambda value: check_compress(text_value(value)),
}


class ConfigFile:
    """One configuration file; every complaint names its line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UsageError(f"{path} is not UTF-8 text") from None
        try:
            self.tables = tomllib.loads(self.text)
        except ValueError as error:  # no TOML, or a number of thousands of digits
            raise UsageError(f"{path}: {error}") from None
        except RecursionError:
            raise UsageError(f"{path}: its values are nested too deeply") from None

    def values(self) -> dict[str, Any]:
        """The keys of the first level, checked."""
        found = {key: value for key, value in self.tables.items() if key != DEVICE_TABLE}
        return self.checked((), found, KEYS)

    def devices(self) -> dict[str, DeviceSpec]:
        tables = self.tables.get(DEVICE_TABLE, {})
        if not isinstance(tables, dict):
            raise self.error((DEVICE_TABLE,), "devices are written as tables, [device.NAME]")
        return {name: self.device(name, table) for name, table in tables.items()}

    def device(self, name: str, table: Any) -> DeviceSpec:
        at = (DEVICE_TABLE, name)
        try:
            check_device_name(name)
        except UsageError as error:
            raise self.error(at, str(error)) from None
        if not isinstance(table, dict):
            raise self.error(at, f"a device is written as a table, [device.{name}]")
        values = self.checked(at, table, DEVICE_KEYS)
        if "size" not in values:
            raise self.error(at, "size is missing")
        return DeviceSpec(name, values["size"], values.get("compress"))

    def checked(
        self,
        at: tuple[str, ...],
        found: dict[str, Any],
        keys: Mapping[str, Callable[[Any], Any]],
    ) -> dict[str, Any]:
        values = {}
        for key, value in found.items():
            if key not in keys:
                choices = [*keys, *([] if at else [f"[{DEVICE_TABLE}.NAME]"])]
                raise self.error(
                    (*at, key), f"unknown key {key!r}: the choices are {', '.join(choices)}"
                )
            try:
                values[key] = keys[key](value)
            except (ValueError, PreswapError) as error:
                raise self.error((*at, key), f"{key}: {error}") from None
        return values

    def error(self, at: tuple[str, ...], text: str) -> UsageError:
        return UsageError(f"{self.path}:{line_of(self.text, at)}: {text}")


# --- both ---


def load(options: Options) -> Config:
    """Options win over the file, the file over the defaults."""
    file = find_file(options)
    values = file.values() if file else {}
    for name in KEYS:
        given = getattr(options, name.replace("-", "_"))
        if name == "instance" and None not in (given, values.get(name)) and given != values[name]:
            raise UsageError(f"--instance is {given}, but {file and file.path} is {values[name]}'s")
        if given is not None:
            values[name] = given
    if "pool-size" not in values:
        where = f" or in {file.path}" if file else ""
        raise UsageError(f"the pool needs a size: give --pool-size{where}, like --pool-size=2G")
    instance = values.get("instance", DEFAULT_INSTANCE)
    return Config(
        Settings(
            instance=instance,
            paths=merge_paths(instance, values),
            pool_size=values["pool-size"],
            devices=merge_devices(file.devices() if file else {}, options.devices),
            compress=values.get("compress", DEFAULT_COMPRESS),
            host_reserve=values.get("host-reserve"),
            discard_state=options.discard_state,
        ),
        threads=values.get("threads"),
        listen=values.get("listen"),
    )


def find_file(options: Options) -> ConfigFile | None:
    """The file that was named, or the instance's own where there is one."""
    if options.config is not None:
        return ConfigFile(options.config)
    path = config_file(options.instance or DEFAULT_INSTANCE)
    return ConfigFile(path) if path.exists() else None


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


def as_toml(config: Config) -> str:
    """What is in force, as a file that says the same."""
    settings, paths = config.settings, config.settings.paths
    values: dict[str, str | int | None] = {
        "instance": settings.instance,
        "runtime-dir": str(paths.runtime_dir),
        "shm-dir": str(paths.shm_dir),
        "state-dir": str(paths.state_dir),
        "pool-size": exact_size(settings.pool_size),
        "host-reserve": None
        if settings.host_reserve is None
        else exact_size(settings.host_reserve),
        "compress": settings.compress,
        "threads": config.threads,
        "listen": config.listen,
    }
    parts = [toml_lines(values)]
    for spec in settings.devices:
        device_values = {"size": exact_size(spec.size), "compress": spec.compress}
        parts.append(f"\n[{DEVICE_TABLE}.{json.dumps(spec.name)}]\n{toml_lines(device_values)}")
    return "".join(parts)


def toml_lines(values: Mapping[str, str | int | None]) -> str:
    # JSON's strings and numbers are TOML's too, but for one control character.
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")
        for key, value in values.items()
        if value is not None
    )
