"""The configuration file of an instance and its drop-ins, read and checked."""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from preswapd.errors import PreswapError, UsageError
from preswapd.paths import check_device_name
from preswapd.preswap.settings import DeviceSpec
from preswapd.server.config.keys import DEVICE_KEYS, DEVICE_TABLE, KEYS
from preswapd.server.config.toml_lines import At, lines_of


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

    def devices(self) -> dict[str, dict[str, Any]]:
        """The checked keys of each device's table; a drop-in need not have them all."""
        tables = self.tables.get(DEVICE_TABLE, {})
        if not isinstance(tables, dict):
            raise self.error((DEVICE_TABLE,), "devices are written as tables, [device.NAME]")
        return {name: self.device(name, table) for name, table in tables.items()}

    def device(self, name: str, table: Any) -> dict[str, Any]:
        at = (DEVICE_TABLE, name)
        try:
            check_device_name(name)
        except UsageError as error:
            raise self.error(at, str(error)) from None
        if not isinstance(table, dict):
            raise self.error(at, f"a device is written as a table, [device.{name}]")
        return self.checked(at, table, DEVICE_KEYS)

    def checked(
        self,
        at: At,
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

    @cached_property
    def lines(self) -> Mapping[At, int]:
        """Only complaints and --show-config ask for it."""
        return lines_of(self.text)

    def place(self, at: At) -> str:
        return f"{self.path}:{self.lines.get(at, 1)}"

    def error(self, at: At, text: str) -> UsageError:
        return UsageError(f"{self.place(at)}: {text}")


class ConfigFiles:
    """Several files as one: of a key that stands in two of them, the later file's counts."""

    def __init__(self, files: Sequence[ConfigFile]) -> None:
        self.values: dict[str, Any] = {}
        self.tables: dict[str, dict[str, Any]] = {}
        self.found: dict[At, ConfigFile] = {}
        for file in files:
            for key, value in file.values().items():
                self.values[key] = value
                self.found[key,] = file
            for name, table in file.devices().items():
                self.found.setdefault((DEVICE_TABLE, name), file)
                self.tables.setdefault(name, {}).update(table)
                self.found |= {(DEVICE_TABLE, name, key): file for key in table}

    def devices(self) -> dict[str, DeviceSpec]:
        return {name: self.device(name, table) for name, table in self.tables.items()}

    def device(self, name: str, table: Mapping[str, Any]) -> DeviceSpec:
        at = (DEVICE_TABLE, name)
        if "size" not in table:
            raise self.found[at].error(at, "size is missing")
        return DeviceSpec(name, table["size"], table.get("compress"))

    def place(self, at: At) -> str | None:
        """FILE:LINE of what counts, None for what no file says."""
        file = self.found.get(at)
        return None if file is None else file.place(at)


def with_drop_ins(path: Path, *, required: bool) -> ConfigFiles:
    """The file, which may be missing where it is not required, and then FILE.d/*.toml by name."""
    own = [path] if required or is_there(path) else []
    return ConfigFiles([ConfigFile(each) for each in (*own, *drop_ins(path))])


def is_there(path: Path) -> bool:
    """Also as a link that leads nowhere: somebody meant it to be read."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    return True


def drop_ins(path: Path) -> list[Path]:
    folder = path.parent / f"{path.name}.d"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}") from None
    return [folder / name for name in names if name.endswith(".toml") and name[0] != "."]
