# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of the ways into a running instance: a client can connect, and is greeted."""

import errno
import ipaddress
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from preswapd.api.kinds import is_loopback, split_address
from preswapd.api.messages import ServerFacts
from preswapd.cli.doctor.finding import FIX, OK, Finding
from preswapd.cli.doctor.reboot import UNIT, Ask
from preswapd.host.addresses import where_to_look
from preswapd.host.systemd import properties
from preswapd.paths import RuntimePaths

# What every NBD server says first.
GREETING = b"NBDMAGICIHAVEOPT"
# A server looks after its sockets once a second.
PATIENCE_SECONDS = 3.0
PAUSE_SECONDS = 0.2
MEND = "its log says what keeps it from making the socket again; a restart loses no page"


def check_sockets(name: str, facts: ServerFacts) -> Iterator[Finding]:
    paths = RuntimePaths(Path(facts.runtime_dir))
    yield checked(name, str(paths.nbd_socket), lambda: greeting_at(paths.nbd_socket))
    yield checked(name, str(paths.control_socket), lambda: connect_to(paths.control_socket))
    if facts.listen_error and facts.tls_keys and facts.tls_keys in facts.listen_error:
        yield Finding(
            FIX,
            name,
            f"guests cannot connect to {facts.listen}: {facts.listen_error}",
            "put that right, then start the server again, which loses no page",
        )
    elif facts.listen_error:
        _, port = split_address(facts.listen or "")
        yield Finding(
            FIX,
            name,
            f"guests cannot connect to {facts.listen}: {facts.listen_error}; it is tried again"
            " every few seconds",
            f"{where_to_look(facts.listen_error, port)}; or change `listen` in the configuration",
        )
    elif facts.listen and facts.tls:
        yield check_guarded(name, facts, *split_address(facts.listen))
    elif facts.listen:
        address = split_address(facts.listen)
        yield checked(name, facts.listen, lambda: greeting_from(tcp_socket(address)))


def check_guarded(name: str, facts: ServerFacts, host: str, port: int) -> Finding:
    """To connect and say nothing would be one more client that was refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as trial:
        try:
            trial.bind((host, 0))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                text = f"nobody can connect to {facts.listen}: this host has no such address now"
                mend = "give it back (`ip address` shows which there are): a restart is not needed"
                return Finding(FIX, name, text, mend)
    return Finding(OK, name, f"clients with TLS ({facts.tls}) can connect to {facts.listen}")


def check_firewall(instance: str, facts: ServerFacts, ask: Ask = properties) -> Iterator[Finding]:
    """The unit lets nobody but this host come, until it is told otherwise."""
    if not facts.listen or is_loopback(facts.listen):
        return
    unit = UNIT.format(name=instance)
    found = ask(unit, "MainPID", "IPAddressDeny", "IPAddressAllow")
    if found.get("MainPID") != str(facts.pid) or not found.get("IPAddressDeny"):
        return
    allowed = found.get("IPAddressAllow", "").split()
    if all(map(is_of_this_host, allowed)):
        folder = f"/etc/systemd/system/{unit}.d"
        lines = r"[Service]\nIPAddressAllow=NETWORK\n"
        write = f"mkdir -p {folder} && printf '{lines}' >{folder}/listen.conf"
        yield Finding(
            FIX,
            unit,
            f"IPAddressDeny= and IPAddressAllow= keep all other hosts from {facts.listen}",
            f"a drop-in, with the guests' NETWORK, such as 192.0.2.0/24: {write} &&"
            f" systemctl daemon-reload && systemctl restart {unit}",
        )


def is_of_this_host(network: str) -> bool:
    try:
        return ipaddress.ip_network(network).is_loopback
    except ValueError:
        return False


def checked(name: str, place: str, connect: Callable[[], None]) -> Finding:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            connect()
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(PAUSE_SECONDS)
                continue
            text = f"nobody can connect to {place}: {error.strerror or error}"
            return Finding(FIX, name, text, MEND)
        return Finding(OK, name, f"clients can connect to {place}")


def greeting_at(path: Path) -> None:
    greeting_from(unix_socket(path))


def connect_to(path: Path) -> None:
    unix_socket(path).close()


def unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def tcp_socket(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, PATIENCE_SECONDS)


def greeting_from(sock: socket.socket) -> None:
    with sock:
        found = b""
        while len(found) < len(GREETING):
            piece = sock.recv(len(GREETING) - len(found))
            if not piece:
                break
            found += piece
    if found != GREETING:
        raise OSError("what answers there is no NBD server")
