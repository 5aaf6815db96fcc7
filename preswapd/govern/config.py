# SPDX-License-Identifier: BSD-3-Clause
"""The governor's configuration: /etc/preswapd/governor.toml and its drop-ins, read and checked as
those of instances are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preswapd.api.kinds import (
    POOL_SIZE,
    SIZE,
    Kind,
    number_value,
    parse_number,
)
from preswapd.api.settings import Place, Setting
from preswapd.errors import UsageError
from preswapd.govern.policy import Rules
from preswapd.govern.shares import LEAST, Share
from preswapd.host.meminfo import default_reserve, total_memory
from preswapd.paths import GOVERNOR, check_instance_name, config_file
from preswapd.server.config.files import ConfigFile, Keys, keys_of, paths_of
from preswapd.server.config.toml_lines import At
from preswapd.units import exact_size, format_size

INSTANCE_TABLE = "instance"
# Instances reject puts at their own reserve: the governor acts before that.
BEFORE_INSTANCES = 256 << 20
LEAST_RESERVE = 64 << 20
LARGEST_WEIGHT = 10000


def check_weight(weight: int) -> int:
    if not 1 <= weight <= LARGEST_WEIGHT:
        raise ValueError(f"{weight} is out of range: from 1 to {LARGEST_WEIGHT}")
    return weight


def check_reserve(size: int) -> int:
    if size < LEAST_RESERVE:
        raise ValueError(f"a reserve must be at least {exact_size(LEAST_RESERVE)}")
    return size


WEIGHT = Kind(
    "n",
    lambda text: check_weight(parse_number(text)),
    lambda value: check_weight(number_value(value)),
)
RESERVE = Kind(
    "size",
    lambda text: check_reserve(SIZE.parse(text)),
    lambda value: check_reserve(SIZE.from_toml(value)),
    exact_size,
)

GOVERNOR_SETTINGS = (
    Setting(
        "reserve",
        RESERVE,
        Place.FILE,
        "memory of the host that stays available to its other programs; what it is short of, pools"
        " give back at once",
        "what host-reserve is by default, and 256M",
    ),
)
SHARE_SETTINGS = (
    Setting(
        "weight",
        WEIGHT,
        Place.FILE,
        "how much of what is there for all the instance gets, beside the others' weights",
        "100",
    ),
    Setting(
        "floor",
        POOL_SIZE,
        Place.FILE,
        "memory that the instance's pool may take whatever is short",
        exact_size(LEAST),
    ),
    Setting(
        "cap",
        POOL_SIZE,
        Place.FILE,
        "the most memory that the instance's pool may take, however much there is",
        "its pool_limit",
    ),
)
GOVERNOR_KEYS: Keys = keys_of(GOVERNOR_SETTINGS)
SHARE_KEYS: Keys = keys_of(SHARE_SETTINGS)


class GovernorFile(ConfigFile):
    named = (INSTANCE_TABLE,)

    def values(self) -> dict[At, Any]:
        found = {key: value for key, value in self.tables.items() if key != INSTANCE_TABLE}
        return self.checked((), found, GOVERNOR_KEYS)

    def instances(self) -> dict[str, dict[At, Any]]:
        tables = self.tables.get(INSTANCE_TABLE, {})
        if not isinstance(tables, dict):
            raise self.error((INSTANCE_TABLE,), "instances are written as tables, [instance.NAME]")
        return {name: self.instance(name, table) for name, table in tables.items()}

    def instance(self, name: str, table: Any) -> dict[At, Any]:
        at = (INSTANCE_TABLE, name)
        try:
            check_instance_name(name)
        except UsageError as error:
            raise self.error(at, str(error)) from None
        if not isinstance(table, dict):
            raise self.error(at, f"an instance is written as a table, [instance.{name}]")
        return self.checked(at, table, SHARE_KEYS)


@dataclass(frozen=True)
class Config:
    rules: Rules
    files: tuple[Path, ...]  # that were read, in that order


def load(path: Path | None = None) -> Config:
    """Of a key in several files the last one counts; what no file says has its default."""
    paths = paths_of(path or config_file(GOVERNOR), required=path is not None)
    values: dict[At, Any] = {}
    shares: dict[str, dict[str, Any]] = {}
    for file in [GovernorFile(each) for each in paths]:
        own_values = file.values()
        check_host(file, own_values.get(("reserve",), 0))
        values |= own_values
        for name, found in file.instances().items():
            own = shares.setdefault(name, {})
            own |= {at[-1]: value for at, value in found.items()}
            check_share(file, name, own)
    reserve = values.get(("reserve",), default_reserve() + BEFORE_INSTANCES)
    rules = Rules(reserve, {name: Share(**own) for name, own in shares.items()})
    return Config(rules, tuple(paths))


def check_host(file: GovernorFile, reserve: int) -> None:
    """A reserve that no host of this size can keep would leave the pools their floors for ever."""
    memory = total_memory()
    if 0 < memory <= reserve:
        raise file.error(
            ("reserve",),
            f"reserve: the host has {format_size(memory)}, and no more can stay available",
        )


def check_share(file: GovernorFile, name: str, own: dict[str, Any]) -> None:
    """As far as the files up to this one say."""
    floor, cap = own.get("floor", LEAST), own.get("cap")
    if cap is not None and floor > cap:
        raise file.error(
            (INSTANCE_TABLE, name),
            f"the floor of {name} is {exact_size(floor)}, above its cap of {exact_size(cap)}",
        )
