# SPDX-License-Identifier: BSD-3-Clause
"""Keys for tests of TLS, made with openssl as the guide does, and clients that use them."""

import secrets
import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbd
import pytest

from tests.running import PATIENCE, run

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed (Debian: openssl)"
)

HOST = "localhost"
BEGIN, NEVER, LONG_AGO = "20200101000000Z", "20991231000000Z", "20200201000000Z"
RSA = ["-newkey", "rsa:2048", "-nodes"]
ELLIPTIC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]

CONFIGURATION = """
[ca]
default_ca = own
[own]
database = {folder}/index
new_certs_dir = {folder}
certificate = {folder}/ca-cert.pem
private_key = {folder}/ca-key.pem
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = leaf
unique_subject = no
[any]
commonName = supplied
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
"""

OPTION = struct.Struct(">8sII")
REPLY = struct.Struct(">QIII")
OPT_ABORT, OPT_LIST, OPT_STARTTLS, OPT_GO = 2, 3, 5, 7
REP_ACK, REP_ERROR = 1, 1 << 31


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "index").touch()
        (folder / "openssl.cnf").write_text(CONFIGURATION.format(folder=folder))
        own = ["-keyout", f"{folder}/ca-key.pem", "-out", f"{folder}/ca-cert.pem"]
        openssl("req", "-x509", *ELLIPTIC, *own, "-days", "9999", "-subj", "/CN=tests")

    @property
    def certificate(self) -> Path:
        return self.folder / "ca-cert.pem"

    def sign(
        self, folder: Path, kind: str, ends: str = NEVER, kind_of_key: Sequence[str] = ELLIPTIC
    ) -> Path:
        """Makes what nbdkit (`kind` server) or a client wants to find in a directory."""
        folder.mkdir(parents=True, exist_ok=True)
        request, key, cert = (folder / f"{kind}-{each}" for each in ("req", "key.pem", "cert.pem"))
        openssl("req", *kind_of_key, "-keyout", key, "-out", request, "-subj", f"/CN={kind}")
        times = ["-startdate", BEGIN, "-enddate", ends]
        config = ["-batch", "-notext", "-config", self.folder / "openssl.cnf"]
        openssl("ca", *config, *times, "-in", request, "-out", cert)
        shutil.copy(self.certificate, folder / "ca-cert.pem")
        return folder


def openssl(*arguments: object) -> None:
    done = run(["openssl", *map(str, arguments)])
    assert done.returncode == 0, done.stderr


def write_keys(path: Path, *names: str) -> Path:
    """A file of new keys."""
    path.write_text("".join(f"{name}:{secrets.token_hex(32)}\n" for name in names))
    path.chmod(0o600)
    return path


def with_certificates(folder: Path, *, verify: bool = True) -> Any:
    """A client of libnbd, not connected."""
    client = nbd.NBD()
    client.set_tls(nbd.TLS_REQUIRE)
    client.set_tls_certificates(str(folder))
    client.set_tls_verify_peer(verify)
    client.set_export_name("g1")
    return client


def with_key(path: Path, name: str) -> Any:
    client = nbd.NBD()
    client.set_tls(nbd.TLS_REQUIRE)
    client.set_tls_psk_file(str(path))
    client.set_tls_username(name)
    client.set_export_name("g1")
    return client


def connected_to(port: int, client: Any) -> Any:
    client.connect_tcp(HOST, str(port))
    return client


class Stranger:
    """The protocol by hand, over TCP, and TLS by OpenSSL where nbdkit's is GnuTLS."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """`host`: the address that it comes from."""
        place = ("127.0.0.1", port)
        self.sock: socket.socket = socket.create_connection(place, PATIENCE, (host, 0))

    def close(self) -> None:
        self.sock.close()

    def receive(self, length: int) -> bytes:
        """Exactly so many bytes, fewer where the server hung up."""
        found = b""
        try:
            while len(found) < length and (piece := self.sock.recv(length - len(found))):
                found += piece
        except (ConnectionError, ssl.SSLError):
            pass
        return found

    def is_hung_up(self) -> bool:
        """Waits for that, whatever is said before."""
        most = 1 << 20
        return len(self.receive(most)) < most

    def greet(self) -> "Stranger":
        assert self.receive(18)[:16] == b"NBDMAGICIHAVEOPT"
        self.sock.sendall(struct.pack(">I", 3))
        return self

    def option(self, number: int, data: bytes = b"") -> int:
        """The last reply's type; 0 where there is none."""
        self.sock.sendall(OPTION.pack(b"IHAVEOPT", number, len(data)) + data)
        while len(reply := self.receive(REPLY.size)) == REPLY.size:
            _, _, kind, length = REPLY.unpack(reply)
            self.receive(length)
            if kind == REP_ACK or kind >= REP_ERROR:
                return int(kind)
        return 0

    def go(self, name: str = "g1") -> int:
        return self.option(OPT_GO, struct.pack(">I", len(name)) + name.encode() + b"\0\0")

    def ask_for_tls(self) -> "Stranger":
        assert self.greet().option(OPT_STARTTLS) == REP_ACK
        return self

    def secure(self, context: ssl.SSLContext) -> "Stranger":
        self.sock = self.ask_for_tls().sock
        self.sock = context.wrap_socket(self.sock, server_hostname=HOST)
        return self


def hello_of(*options: str) -> bytes:
    """What openssl, with options of its s_client, says first."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where = ["-connect", f"127.0.0.1:{listening.getsockname()[1]}"]
        with subprocess.Popen(
            ["openssl", "s_client", *where, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ):
            client, _ = listening.accept()
            with client:
                return client.recv(1 << 16)


def context_of(
    ca: Path, folder: Path | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """`folder` has a client's certificate; old versions need OpenSSL's lowest level."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    if folder is not None:
        context.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
    if version is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    return context


def relay(client: socket.socket, server: socket.socket, seen: bytearray | None = None) -> None:
    """Hands on what the two say until both have ended, notes it in `seen`, and closes them."""
    with client, server:
        back = threading.Thread(target=pass_on, args=(server, client, seen))
        back.start()
        pass_on(client, server, seen)
        back.join()


def pass_on(source: socket.socket, to: socket.socket, seen: bytearray | None) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if seen is not None:
                seen += data
            to.sendall(data)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)
