"""What is in force, written as a configuration file."""

import json
from collections.abc import Callable, Mapping

from preswapd.server.config.keys import DEVICE_TABLE
from preswapd.server.config.merged import Config
from preswapd.server.config.toml_lines import At
from preswapd.units import exact_size


def as_toml(config: Config) -> str:
    """What is in force, as a file that says the same, and where each value came from."""
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
    parts = [assignments((), values, config.origin)]
    for spec in settings.devices:
        device_values = {"size": exact_size(spec.size), "compress": spec.compress}
        lines = assignments((DEVICE_TABLE, spec.name), device_values, config.origin)
        parts.append(f"\n[{DEVICE_TABLE}.{json.dumps(spec.name)}]\n{lines}")
    return "".join(parts)


def assignments(
    table: At,
    values: Mapping[str, str | int | None],
    origin: Callable[[At], str | None],
) -> str:
    return "".join(
        f"{key} = {toml_value(value)}{comment(origin((*table, key)))}\n"
        for key, value in values.items()
        if value is not None
    )


def toml_value(value: str | int) -> str:
    # JSON's strings and numbers are TOML's too, but for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def comment(origin: str | None) -> str:
    """A path may hold what no comment may."""
    if origin is None:
        return ""
    return "  # " + "".join(char if char.isprintable() else "?" for char in origin)
