# SPDX-License-Identifier: BSD-3-Clause
"""The sockets that the server listens on: its own, or those that systemd hands over."""

import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from preswapd.errors import RefusedError, UsageError
from preswapd.paths import InstancePaths

# As long as the system allows: a client that does not wait for its connect() is refused when it is
# full, and after a restart all come at once.
BACKLOG = 4096
# sockaddr_un's path, with its final zero.
LONGEST_PATH = 107
FIRST_PASSED = 3

# QEMU's user may be in the server's group; the directory's mode says whether that counts.
NBD_MODE = 0o660
CONTROL_MODE = 0o600


@dataclass
class Listening:
    """The sockets that the server listens on."""

    nbd: list[socket.socket] = field(default_factory=list)
    control: socket.socket | None = None
    own: list[Path] = field(default_factory=list)  # sockets in the file system that we made


def check_lengths(paths: InstancePaths) -> None:
    for path in (paths.nbd_socket, paths.control_socket):
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise UsageError(
                f"{path} is too long for a socket ({LONGEST_PATH} bytes): use a shorter"
                " --runtime-dir"
            )


def listen_all(
    paths: InstancePaths, address: tuple[str, int] | None, passed: Iterable[socket.socket]
) -> Listening:
    """Takes what systemd passed and adds what is missing.  The directory is locked."""
    found = sort_passed(paths, passed)
    if not any(is_at(sock, paths.nbd_socket) for sock in found.nbd):
        found.nbd.insert(0, bind_unix(paths.nbd_socket, NBD_MODE))
        found.own.append(paths.nbd_socket)
    if found.control is None:
        found.control = bind_unix(paths.control_socket, CONTROL_MODE)
        found.own.append(paths.control_socket)
    if address is not None:
        found.nbd.append(bind_tcp(*address))
    return found


def sort_passed(paths: InstancePaths, passed: Iterable[socket.socket]) -> Listening:
    found = Listening()
    for sock in passed:
        if is_at(sock, paths.control_socket):
            found.control = sock
        elif sock.family == socket.AF_UNIX or is_loopback(sock):
            found.nbd.append(sock)
        else:
            raise UsageError(
                f"systemd passed a socket at {sock.getsockname()[0]}, which other hosts can reach:"
                " only loopback addresses are served"
            )
    return found


def is_at(sock: socket.socket, path: Path) -> bool:
    return sock.family == socket.AF_UNIX and sock.getsockname() == str(path)


def is_loopback(sock: socket.socket) -> bool:
    return ipaddress.ip_address(sock.getsockname()[0]).is_loopback


def bind_unix(path: Path, mode: int) -> socket.socket:
    """A server that was killed leaves its socket behind; while the directory is locked by this one,
    nobody listens on it."""
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise RefusedError(f"{path}: {error.strerror}") from None
    finally:
        os.umask(before)
    return sock


def bind_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise RefusedError(f"{host}, port {port}: {error.strerror}") from None
    return sock


def passed_by_systemd(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets of LISTEN_FDS, whose variables are taken out of the environment."""
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    values = {name: environment.pop(name, "") for name in names}
    if values["LISTEN_PID"] != str(os.getpid()) or not values["LISTEN_FDS"].isdigit():
        return []
    count = int(values["LISTEN_FDS"])
    try:
        return [
            socket.socket(fileno=descriptor)
            for descriptor in range(FIRST_PASSED, FIRST_PASSED + count)
        ]
    except OSError as error:
        raise UsageError(f"a descriptor of LISTEN_FDS is not a socket: {error.strerror}") from None
