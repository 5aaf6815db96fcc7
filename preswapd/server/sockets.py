# SPDX-License-Identifier: BSD-3-Clause
"""The sockets that the server listens on: its own, or those that systemd hands over."""

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from preswapd.errors import RefusedError, UsageError
from preswapd.host.addresses import where_to_look
from preswapd.paths import InstancePaths

Address = tuple[str, int]

# As long as the system allows: a client that does not wait for its connect() is refused when it is
# full, and after a restart all come at once.
BACKLOG = 4096
# sockaddr_un's path, with its final zero.
LONGEST_PATH = 107
FIRST_PASSED = 3
# After so long without a word a client's host is asked whether it is there, so often.
SILENT_SECONDS, PROBE_SECONDS, PROBES = 60, 10, 6

# QEMU's user may be in the server's group; the directory's mode says whether that counts.
NBD_MODE = 0o660
CONTROL_MODE = 0o600


@dataclass
class Listening:
    """The sockets that the server listens on, in the order in which nbdkit gets them: the one at
    RUNTIME_DIR/nbd.sock comes first, and the one at the address of `listen`, if any, last."""

    nbd: list[socket.socket] = field(default_factory=list)
    control: socket.socket | None = None
    own: list[Path] = field(default_factory=list)  # sockets in the file system that we made
    listen_error: str | None = None  # why nobody can connect to that address yet
    complaints: list[str] = field(default_factory=list)


def check_lengths(paths: InstancePaths) -> None:
    for path in (paths.nbd_socket, paths.control_socket):
        if len(os.fsencode(path)) > LONGEST_PATH:
            raise UsageError(
                f"{path} is too long for a socket ({LONGEST_PATH} bytes): use a shorter"
                " --runtime-dir"
            )


@dataclass(frozen=True)
class Tcp:
    """How NBD is served over TCP."""

    address: Address | None = None  # of `listen`; systemd may pass others
    is_guarded: bool = False  # by TLS, without which only loopback addresses are served
    error: str | None = None  # why TLS cannot be had: then nobody is served over TCP


NO_TCP = Tcp()


def listen_all(
    paths: InstancePaths, passed: Iterable[socket.socket], tcp: Tcp = NO_TCP
) -> Listening:
    """Takes what systemd passed and adds what is missing.  The directory is locked."""
    found = sort_passed(paths, passed, tcp)
    at_path = [sock for sock in found.nbd if is_at(sock, paths.nbd_socket)]
    if at_path and answers(paths.nbd_socket):
        found.nbd.remove(at_path[0])
        found.nbd.insert(0, at_path[0])
    else:
        found.nbd.insert(0, bind_unix(paths.nbd_socket, NBD_MODE))
        found.own.append(paths.nbd_socket)
    if found.own and at_path:
        # It is kept, too: who is in its queue is still waiting.
        found.complaints.append(
            f"{paths.nbd_socket}, which systemd has passed, was removed: it was made again, and"
            " `systemctl restart` of its socket unit gives it back to systemd"
        )
    if found.control is None or not answers(paths.control_socket):
        add_control(found, paths.control_socket)
    if tcp.address is not None and tcp.error is None:
        add_tcp(found, tcp.address)
    elif tcp.error is not None:
        found.nbd.append(silent())
        found.listen_error = tcp.error
        found.complaints.append(
            f"{tcp.error}: guests are served at {paths.nbd_socket} alone, and nobody over TCP until"
            " that is put right and the server is started again, which loses no page"
        )
    return found


def add_control(found: Listening, path: Path) -> None:
    """Guests wait for the server, operators can wait until there is room for their socket."""
    try:
        found.control = bind_unix(path, CONTROL_MODE)
        found.own.append(path)
    except RefusedError as error:
        found.control = silent()
        found.complaints.append(f"{error}; guests are served, and it is tried again every second")


def add_tcp(found: Listening, address: Address) -> None:
    """Where the address cannot be had, guests are served at the path."""
    (path, *others), there = found.nbd, [sock for sock in found.nbd if is_at_address(sock, address)]
    if there:
        sock = there[0]
        others.remove(sock)
    else:
        try:
            sock = bind_tcp(*address)
        except RefusedError as error:
            sock = silent()
            found.listen_error = str(error)
            found.complaints.append(
                f"{error}: guests are served at {path.getsockname()} alone, and it is tried again"
                f" every few seconds; {where_to_look(str(error), address[1])}, and `listen` in the"
                " configuration names another one"
            )
    found.nbd = [path, *others, sock]


def silent() -> socket.socket:
    """In the place of one that cannot be had yet: a socket on which nobody ever comes."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def is_silent(descriptor: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return sock.type == socket.SOCK_DGRAM


def sort_passed(paths: InstancePaths, passed: Iterable[socket.socket], tcp: Tcp) -> Listening:
    found = Listening()
    for sock in passed:
        if is_at(sock, paths.control_socket):
            found.control = sock
        elif sock.family == socket.AF_UNIX:
            found.nbd.append(sock)
        elif tcp.error is not None:  # told with the rest
            sock.close()
        elif is_tcp(sock) and (tcp.is_guarded or is_loopback(sock)):
            notice_the_dead(sock)
            found.nbd.append(sock)
        else:
            found.complaints.append(
                f"systemd has passed a socket at {sock.getsockname()[0]}, which other hosts can"
                " reach, and nobody is served there: without tls-mode only loopback addresses are,"
                " so change its ListenStream= and restart the socket unit"
            )
            sock.close()
    return found


def notice_the_dead(sock: socket.socket) -> None:
    """Of a socket that listens, for all its clients: one whose host has died does not stay
    connected for ever.  A guest that is only cut off connects again."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    # The same where an answer of ours is on its way, for which the system would wait much longer.
    limit = SILENT_SECONDS + PROBE_SECONDS * PROBES
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit * 1000)


def is_at(sock: socket.socket, path: Path) -> bool:
    return sock.family == socket.AF_UNIX and sock.getsockname() == str(path)


def is_at_address(sock: socket.socket, address: Address) -> bool:
    return sock.family != socket.AF_UNIX and sock.getsockname()[:2] == address


def answers(path: Path) -> bool:
    """Whether somebody listens at the path, also one whose queue is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno == errno.EAGAIN
    return True


def is_tcp(sock: socket.socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)


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
    try:
        sock.bind(str(path))
        # Nobody can connect before it listens, whatever the umask is.
        path.chmod(mode)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise RefusedError(f"{path} is no socket and in the way: remove or rename it") from None
        raise RefusedError(f"{path}: {error.strerror}") from None
    return sock


def bind_tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # a host without IPv6
        raise RefusedError(f"{host}, port {port}: {error.strerror}") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    notice_the_dead(sock)
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
    if values["LISTEN_PID"] != str(os.getpid()) or not is_number(values["LISTEN_FDS"]):
        return []
    count = int(values["LISTEN_FDS"])
    try:
        return [
            socket.socket(fileno=descriptor)
            for descriptor in range(FIRST_PASSED, FIRST_PASSED + count)
        ]
    except OSError as error:
        raise UsageError(f"a descriptor of LISTEN_FDS is not a socket: {error.strerror}") from None


def is_number(text: str) -> bool:
    """Not all that int() does not take are told apart by isdigit()."""
    return text.isascii() and text.isdigit()
