# SPDX-License-Identifier: BSD-3-Clause
"""The configuration file of an instance and its drop-ins, read and checked."""

import errno
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from preswapd.api.settings import DEVICE, IMAGE, INSTANCE, Place, Setting, said_in
from preswapd.errors import PreswapError, RefusedError, UsageError
from preswapd.paths import check_device_name
from preswapd.precache.settings import ImageSpec
from preswapd.preswap.settings import DeviceSpec
from preswapd.server.config.toml_lines import At, lines_of

DEVICE_TABLE, IMAGE_TABLE = "device", "image"
NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}

# What may stand in a table: settings, and tables within it.
Keys = dict[str, "Setting | Keys"]


def keys_of(settings: Iterable[Setting]) -> Keys:
    keys: Keys = {}
    for setting in said_in(Place.FILE, settings):
        table = keys.setdefault(setting.table, {}) if setting.table else keys
        assert isinstance(table, dict), f"{setting.table} is a key and a table"
        table[setting.key] = setting
    return keys


INSTANCE_KEYS = keys_of(INSTANCE)
DEVICE_KEYS, IMAGE_KEYS = keys_of(DEVICE), keys_of(IMAGE)
# The tables whose tables have names of their own.
NAMED = {DEVICE_TABLE: DEVICE_KEYS, IMAGE_TABLE: IMAGE_KEYS}


class ConfigFile:
    """One configuration file; every complaint names its line."""

    # Those of this kind of file.
    named: Sequence[str] = tuple(NAMED)

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Some editors begin a file with a byte-order mark.
            self.text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise cannot_be_read(path, error) from None
        except UnicodeDecodeError:
            raise UsageError(f"{path} is not UTF-8 text: save it as UTF-8") from None
        try:
            self.tables = tomllib.loads(self.text)
        except ValueError as error:  # no TOML, or a number of thousands of digits
            raise UsageError(f"{path}: {error}") from None
        except RecursionError:
            raise UsageError(f"{path}: its values are nested too deeply") from None

    def values(self) -> dict[At, Any]:
        """The values of the instance, checked, by where they stand."""
        found = {key: value for key, value in self.tables.items() if key not in NAMED}
        return self.checked((), found, INSTANCE_KEYS)

    def devices(self) -> dict[str, dict[At, Any]]:
        """The checked values of each device; a drop-in need not have them all."""
        return self.all_named(DEVICE_TABLE)

    def images(self) -> dict[str, dict[At, Any]]:
        """The same of each image."""
        return self.all_named(IMAGE_TABLE)

    def all_named(self, kind: str) -> dict[str, dict[At, Any]]:
        tables = self.tables.get(kind, {})
        if not isinstance(tables, dict):
            raise self.error((kind,), f"{kind}s are written as tables, [{kind}.NAME]")
        return {name: self.one_named(kind, name, table) for name, table in tables.items()}

    def one_named(self, kind: str, name: str, table: Any) -> dict[At, Any]:
        at = (kind, name)
        try:
            check_device_name(name)
        except UsageError as error:
            raise self.error(at, str(error)) from None
        if not isinstance(table, dict):
            article = "an" if kind == IMAGE_TABLE else "a"
            raise self.error(at, f"{article} {kind} is written as a table, [{kind}.{name}]")
        return self.checked(at, table, NAMED[kind])

    def checked(self, table: At, found: Mapping[str, Any], keys: Keys) -> dict[At, Any]:
        """The values in a table and in the tables within it."""
        values: dict[At, Any] = {}
        for key, value in found.items():
            at, known = (*table, key), keys.get(key)
            if known is None:
                known_keys = choices(table, keys, self.named)
                raise self.error(at, f"unknown key {key!r}: the choices are {known_keys}")
            if isinstance(known, Setting):
                values[at] = self.value(at, value, known)
            elif isinstance(value, dict):
                values |= self.checked(at, value, known)
            else:
                raise self.error(at, f"{key} is written as a table, [{key}]")
        return values

    def value(self, at: At, value: Any, setting: Setting) -> Any:
        try:
            return setting.kind.from_toml(value)
        except (ValueError, PreswapError) as error:
            raise self.error(at, f"{setting.key}: {error}") from None

    @cached_property
    def lines(self) -> Mapping[At, int]:
        """The line of each key; only complaints and --show-config ask for it."""
        return lines_of(self.text)

    def place(self, at: At) -> str:
        # Of a value that is nested almost too deeply to be read the line is not known.
        return f"{self.path}:{self.lines.get(at, 1)}"

    def error(self, at: At, text: str) -> UsageError:
        return UsageError(f"{self.place(at)}: {text}")


def cannot_be_read(path: Path, error: OSError) -> PreswapError:
    """A name that leads to no file is a mistake of whoever wrote it.  All else may be mended while
    the service tries again: permissions, or a disk that fails."""
    text = f"{path}: {error.strerror}"
    if error.errno in NO_SUCH_FILE:
        return UsageError(text)
    if isinstance(error, PermissionError):
        text += f": let user {os.geteuid()} read it, for example chmod a+rX {path.parent} {path}"
    return RefusedError(text)


def choices(table: At, keys: Keys, named: Sequence[str]) -> str:
    names = [key if isinstance(known, Setting) else f"[{key}]" for key, known in keys.items()]
    return ", ".join([*names, *([] if table else [f"[{kind}.NAME]" for kind in named])])


class ConfigFiles:
    """Several files as one: where two of them have a key, the later file's value counts."""

    def __init__(self, files: Sequence[ConfigFile]) -> None:
        self.values: dict[At, Any] = {}
        self.tables: dict[At, dict[At, Any]] = {}  # of each device and image
        self.found: dict[At, ConfigFile] = {}
        for file in files:
            self.add(file, file.values(), self.values)
            for kind, named in ((DEVICE_TABLE, file.devices()), (IMAGE_TABLE, file.images())):
                for name, values in named.items():
                    self.found.setdefault((kind, name), file)
                    self.add(file, values, self.tables.setdefault((kind, name), {}))

    def add(self, file: ConfigFile, values: Mapping[At, Any], to: dict[At, Any]) -> None:
        to.update(values)
        self.found.update(dict.fromkeys(values, file))

    def devices(self) -> dict[str, DeviceSpec]:
        found = self.named(DEVICE_TABLE, DEVICE, "size")
        return {name: DeviceSpec(name, **known) for name, known in found.items()}

    def images(self) -> dict[str, ImageSpec]:
        found = self.named(IMAGE_TABLE, IMAGE, "path")
        return {
            name: ImageSpec(
                name, **{key: value for key, value in known.items() if value is not None}
            )
            for name, known in found.items()
        }

    def named(
        self, kind: str, settings: Iterable[Setting], needed: str
    ) -> dict[str, dict[str, Any]]:
        """The values of each table of a kind by their settings' names; None where none was said."""
        found = {}
        for at, values in self.tables.items():
            if at[0] != kind:
                continue
            if (*at, needed) not in values:
                raise self.found[at].error(at, f"{needed} is missing")
            found[at[1]] = {
                setting.parameter: values.get((*at, setting.key))
                for setting in said_in(Place.FILE, settings)
            }
        return found

    def place(self, at: At) -> str | None:
        """FILE:LINE of the value that counts; None where no file has one."""
        file = self.found.get(at)
        return None if file is None else file.place(at)


def with_drop_ins(path: Path, *, required: bool) -> ConfigFiles:
    return ConfigFiles([ConfigFile(each) for each in paths_of(path, required=required)])


def paths_of(path: Path, *, required: bool) -> list[Path]:
    """The file, which may be missing where it is not required, and then FILE.d/*.toml by name."""
    own = [path] if required or is_there(path) else []
    return [*own, *drop_ins(path)]


def is_there(path: Path) -> bool:
    """True for a link that leads nowhere, too: somebody meant a file to be read."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise cannot_be_read(path, error) from None
    return True


def drop_ins(path: Path) -> list[Path]:
    folder = path.parent / f"{path.name}.d"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise cannot_be_read(folder, error) from None
    return [folder / name for name in names if name.endswith(".toml") and name[0] != "."]
