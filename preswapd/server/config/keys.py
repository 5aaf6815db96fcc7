"""Single values of the configuration, as an option or a file gives them; which keys there are."""

import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from preswapd.paths import check_device_name, check_instance_name
from preswapd.preswap.settings import (
    DeviceSpec,
    check_compress,
    check_device_size,
    check_pool_size,
)
from preswapd.units import parse_size

MOST_THREADS = 256

# --- texts, as options are ---


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


def number(text: str) -> int:
    """Of digits alone: int() would take "1_0" and digits of other scripts too."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def threads(count: int) -> int:
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"{count} threads: from 1 to {MOST_THREADS} are possible")
    return count


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
        return "127.0.0.1" if host == "localhost" else host, number(port)
    except ValueError:
        raise ValueError(f"{text!r} is not ADDR:PORT, like 127.0.0.1:10809") from None


# --- what TOML made of a file's ---


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
