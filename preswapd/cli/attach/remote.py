# SPDX-License-Identifier: BSD-3-Clause
"""The server as guests of other hosts find it: its address of `listen`, and their keys of TLS."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from preswapd.api.kinds import PSK, X509, parse_number
from preswapd.api.messages import ServerFacts
from preswapd.commandline import Reader
from preswapd.errors import RefusedError, UsageError

Command = TypeVar("Command", bound=Callable[..., object])

# Where QEMU's and libvirt's own documents have people put certificates.
KEYS_DIR = Path("/etc/pki/qemu")
# QEMU's own default.
KEY_NAME = "qemu"
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\.?")


@dataclass(frozen=True)
class Remote:
    """`tls`: its mode, None where the server has none, which then is on this host."""

    host: str
    port: int
    tls: str | None
    keys_dir: Path = KEYS_DIR
    key_name: str = KEY_NAME

    def server(self, keys: str) -> dict[str, Any]:
        """Of a node in QEMU; `keys`: the id of the object."""
        address = {"type": "inet", "host": self.host, "port": str(self.port)}
        return {"server": address, **({"tls-creds": keys} if self.tls else {})}

    def objects(self, keys: str) -> list[dict[str, Any]]:
        if self.tls is None:
            return []
        common = {"id": keys, "endpoint": "client", "dir": str(self.keys_dir)}
        if self.tls == PSK:
            return [{"qom-type": "tls-creds-psk", **common, "username": self.key_name}]
        return [{"qom-type": "tls-creds-x509", **common, "verify-peer": True}]


def parse_host(text: str) -> tuple[str, int]:
    """HOST:PORT, where HOST may be a name too."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not (is_address(bare) or HOST_NAME.fullmatch(host)):
        raise ValueError(f"{text!r} is not HOST:PORT, like swap.example.org:10809")
    number = parse_number(port)
    if not 1 <= number <= 65535:
        raise ValueError(f"{number} is not a port")
    return bare, number


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def parse_directory(text: str) -> Path:
    """Of another host, so that it need not be here."""
    if not Path(text).is_absolute():
        raise ValueError(f"{text!r} is not an absolute path")
    return Path(text)


tcp_option = click.option(
    "--tcp",
    type=Reader("host:port", parse_host),
    help="For a guest of another host: where it finds the address of `listen`. A name must be one"
    " that the server's certificate has.",
)
keys_dir_option = click.option(
    "--keys-dir",
    type=Reader("dir", parse_directory),
    help="With --tcp: the directory on the guest's host that has ca-cert.pem, client-cert.pem and"
    f" client-key.pem, or keys.psk. Default: {KEYS_DIR}.",
)
key_name_option = click.option(
    "--key-name",
    metavar="NAME",
    help=f"With --tcp and psk: the name before the key in keys.psk. Default: {KEY_NAME}.",
)


class Way(NamedTuple):
    """What the options say of where the guest is."""

    tcp: tuple[str, int] | None = None
    keys_dir: Path | None = None
    key_name: str | None = None


LOCAL = Way()


def remote_options(command: Command) -> Command:
    return tcp_option(keys_dir_option(key_name_option(command)))


def check(way: Way) -> None:
    """UsageError for options of a guest elsewhere, of one that is here."""
    for option, value in (("--keys-dir", way.keys_dir), ("--key-name", way.key_name)):
        if way.tcp is None and value is not None:
            raise UsageError(f"{option} goes with --tcp alone")


def remote(facts: ServerFacts, way: Way) -> Remote:
    """RefusedError where the server is not to be found over TCP."""
    assert way.tcp is not None
    if facts.listen is None:
        raise RefusedError(
            'this server has no address for TCP: say listen = "ADDR:PORT" and [tls] in its'
            " configuration, and start it again"
        )
    if facts.tls not in (None, X509, PSK):
        raise RefusedError(f"this preswapctl knows no TLS of the kind {facts.tls!r}")
    if way.key_name is not None and facts.tls != PSK:
        raise UsageError(f"--key-name is for keys, and the server wants {facts.tls or 'no TLS'}")
    return Remote(*way.tcp, facts.tls, way.keys_dir or KEYS_DIR, way.key_name or KEY_NAME)
