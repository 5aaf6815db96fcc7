# SPDX-License-Identifier: BSD-3-Clause
"""Settings as options of `preswapd serve`."""

from collections.abc import Callable
from typing import TypeVar

import click

from preswapd.api.kinds import DEVICE_SIZE, Kind
from preswapd.api.settings import INSTANCE, Place, said_in
from preswapd.commandline import Reader
from preswapd.paths import check_device_name, parse_path
from preswapd.precache.settings import ImageSpec
from preswapd.preswap.settings import DeviceSpec

Command = TypeVar("Command", bound=Callable[..., object])


def setting_options(command: Command) -> Command:
    """The option of each setting that has one; its value, or None, comes as `setting.parameter`."""
    for setting in reversed(said_in(Place.OPTION, INSTANCE)):
        option = click.option(
            f"--{setting.name}", setting.parameter, type=type_of(setting.kind), help=setting.help
        )
        command = option(command)
    return command


def type_of(kind: Kind) -> click.ParamType:  # type: ignore[type-arg]
    if kind.choices:
        return click.Choice(kind.choices)
    return Reader(kind.metavar, kind.parse, kind.path)


def parse_device(text: str) -> DeviceSpec:
    """NAME=SIZE"""
    name, equals, size = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not a device: write it as NAME=SIZE, like swap0=4G")
    return DeviceSpec(check_device_name(name), DEVICE_SIZE.parse(size))


def parse_image(text: str) -> ImageSpec:
    """NAME=PATH"""
    name, equals, path = text.partition("=")
    if not equals:
        raise ValueError(
            f"{text!r} is not an image: write it as NAME=PATH, like debian=/srv/debian.raw"
        )
    return ImageSpec(check_device_name(name), parse_path(path))
