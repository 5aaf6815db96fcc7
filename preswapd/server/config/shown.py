# SPDX-License-Identifier: BSD-3-Clause
"""The values in force, written as a configuration file."""

import json
from collections.abc import Iterable, Iterator

from preswapd.api.settings import DEVICE, IMAGE, INSTANCE, Place, Setting, said_in
from preswapd.precache.settings import FIRST_READ, ImageSpec
from preswapd.server.config.files import DEVICE_TABLE, IMAGE_TABLE
from preswapd.server.config.merged import Config, Values, in_force
from preswapd.server.config.toml_lines import At


def as_toml(config: Config) -> str:
    """A file that says the same as files and options together, and where each value came from."""
    return "\n".join("".join(lines) for lines in tables(config) if lines)


def tables(config: Config) -> Iterator[list[str]]:
    """The lines of each table; in TOML the keys of the first level stand before all tables."""
    values = in_force(config)
    settings = said_in(Place.FILE, INSTANCE)
    for table in dict.fromkeys(("", *(setting.table for setting in settings))):
        own = [setting for setting in settings if setting.table == table]
        lines = list(assignments(config, (table,) if table else (), own, values))
        yield [f"[{table}]\n", *lines] if table and lines else lines
    named = [
        *((DEVICE_TABLE, DEVICE, spec.name, vars(spec)) for spec in config.settings.devices),
        *(
            (IMAGE_TABLE, IMAGE, spec.name, {**vars(spec), **unsaid_defaults(spec)})
            for spec in config.images
        ),
    ]
    for kind, own_settings, name, said in named:
        lines = list(assignments(config, (kind, name), said_in(Place.FILE, own_settings), said))
        yield [f"[{kind}.{json.dumps(name)}]\n", *lines]


def unsaid_defaults(spec: ImageSpec) -> Values:
    """An image's table has only what differs from every other's."""
    return {
        "writable": spec.writable or None,
        "admit": None if spec.admit == FIRST_READ else spec.admit,
    }


def assignments(
    config: Config, table: At, settings: Iterable[Setting], values: Values
) -> Iterator[str]:
    for setting in settings:
        value = values[setting.parameter]
        if value is not None:
            text = toml_value(setting.kind.to_toml(value))
            yield f"{setting.key} = {text}{comment(config.origin((*table, setting.key)))}\n"


def toml_value(value: str | int) -> str:
    # JSON's strings and numbers are TOML's too, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def comment(origin: str | None) -> str:
    """A path may contain characters that a comment may not."""
    if origin is None:
        return ""
    return "  # " + "".join(char if char.isprintable() else "?" for char in origin)
