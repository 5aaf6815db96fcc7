# SPDX-License-Identifier: BSD-3-Clause
"""NBD over TCP with TLS: who is let in, by certificates and by keys, and what is on the wire."""

import json
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nbd
import pytest

from preswapd.errors import RefusedError
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.moving.moves import announced
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected, discard
from tests.conftest import StartServer
from tests.ports import free_port
from tests.running import RunningServer, run, wait_for, wait_until
from tests.tls import (
    HOST,
    LONG_AGO,
    OPT_LIST,
    OPT_STARTTLS,
    REP_ACK,
    REP_ERROR,
    RSA,
    Authority,
    Stranger,
    connected_to,
    context_of,
    hello_of,
    needs_openssl,
    relay,
    with_certificates,
    with_key,
    write_keys,
)

pytestmark = [needs_openssl, pytest.mark.xdist_group("nbd-tls")]

DATA = b"what a guest has swapped out " * 1000
PLACE = 1 << 20


class Served(NamedTuple):
    server: RunningServer
    port: int
    keys: Path  # a folder with the CA's, the server's and a client's, or the file of keys

    @property
    def refused(self) -> int:
        return self.server.client.facts().tls_refused


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def x509(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("x509")
    for kind in ("server", "client"):
        authority.sign(folder / "keys", kind)
    keys, port = folder / "keys", free_port()
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=x509", f"--tls-certificates={keys}"]
    with RunningServer(folder, extra=options) as server:
        discard(connected(server)).shutdown()
        yield Served(server, port, keys)


@pytest.fixture(scope="module")
def psk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("psk")
    keys, port = write_keys(folder / "keys.psk", "vm1", "vm2"), free_port()
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=psk", f"--tls-psk-file={keys}"]
    with RunningServer(folder, extra=options) as server:
        discard(connected(server)).shutdown()
        yield Served(server, port, keys)


@pytest.fixture(autouse=True)
def bystander(x509: Served, psk: Served) -> Iterator[None]:
    """A guest at the Unix socket, without TLS, which must not notice anything."""
    clients = {served: connected(served.server) for served in (x509, psk)}
    for client in clients.values():
        client.pwrite(DATA, 32 << 20)
    yield
    for served, client in clients.items():
        assert bytes(client.pread(len(DATA), 32 << 20)) == DATA
        client.shutdown()
        assert "Traceback" not in served.server.log


@contextmanager
def counted(served: Served) -> Iterator[None]:
    """One more client was not let in.  Every test that has one says so: it is counted within a
    second or two, and the next one must not find it."""
    before = served.refused
    yield
    assert wait_for(lambda: served.refused, lambda now: now > before) == before + 1


def is_counted(served: Served, refused: Callable[[], object]) -> None:
    with counted(served):
        refused()


def is_logged(served: Served, text: str) -> None:
    """Within a second or so: the log is written beside the clients."""
    wait_until(lambda: text in served.server.log, f"the log to say {text!r}")


def fails(client: Any, port: int) -> None:
    with pytest.raises(nbd.Error):
        connected_to(port, client)


# --- who comes in ---


def test_certificate_of_the_ca_lets_in(x509: Served) -> None:
    client = connected_to(x509.port, with_certificates(x509.keys))
    assert client.get_tls_negotiated()
    client.pwrite(DATA, PLACE)
    assert bytes(client.pread(len(DATA), PLACE)) == DATA
    client.shutdown()


def test_every_key_of_the_file_lets_in(psk: Served) -> None:
    for name in ("vm1", "vm2"):
        client = connected_to(psk.port, with_key(psk.keys, name))
        assert client.get_tls_negotiated()
        client.pwrite(DATA, PLACE)
        assert bytes(client.pread(len(DATA), PLACE)) == DATA
        client.shutdown()


def test_list_of_exports_with_tls_is_no_refusal(x509: Served) -> None:
    """It opens none."""
    client = with_certificates(x509.keys)
    client.set_opt_mode(True)
    connected_to(x509.port, client)
    names: list[str] = []

    def listed(name: str, _: str) -> int:
        names.append(name)
        return 0

    client.opt_list(listed)
    client.opt_abort()
    assert names == ["g1"]
    # No other one is.
    is_counted(x509, lambda: stranger_without_tls(x509.port))


def test_unix_socket_takes_tls_too(x509: Served) -> None:
    client = with_certificates(x509.keys, verify=False)
    client.connect_unix(str(x509.server.nbd_socket))
    assert client.get_tls_negotiated()
    assert client.get_size() == 64 << 20
    client.shutdown()


# --- who does not ---


def stranger_without_tls(port: int) -> None:
    stranger = Stranger(port).greet()
    assert stranger.go() >= REP_ERROR
    stranger.close()


@pytest.mark.parametrize("mode", ["x509", "psk"])
def test_client_without_tls(request: pytest.FixtureRequest, mode: str) -> None:
    served = request.getfixturevalue(mode)
    is_counted(served, lambda: stranger_without_tls(served.port))
    is_logged(served, "a client at 127.0.0.1 was refused: it does not use TLS")


def test_client_without_tls_by_the_old_option(x509: Served) -> None:
    def ask() -> None:
        stranger = Stranger(x509.port).greet()
        stranger.sock.sendall(b"IHAVEOPT\0\0\0\1\0\0\0\2g1")
        assert stranger.is_hung_up()
        stranger.close()

    is_counted(x509, ask)


def test_client_without_tls_is_not_told_what_there_is(x509: Served) -> None:
    def ask() -> None:
        stranger = Stranger(x509.port).greet()
        assert stranger.option(OPT_LIST) >= REP_ERROR
        assert stranger.go("") >= REP_ERROR
        assert stranger.go("no-such-export") >= REP_ERROR
        stranger.close()

    is_counted(x509, ask)


def test_server_of_another_host_without_tls_is_told_no_life(x509: Served) -> None:
    def ask() -> None:
        with pytest.raises(RefusedError, match=r"does not give 'g1\?life'"):
            announced(f"nbd://127.0.0.1:{x509.port}/g1", 64 << 20)

    is_counted(x509, ask)
    assert Sidecar.read(x509.server.paths.sidecar("g1")).life == 0


def test_whoever_asks_too_early_may_still_use_tls(x509: Served) -> None:
    with counted(x509):
        stranger = Stranger(x509.port).greet()
        assert stranger.go() >= REP_ERROR
        assert stranger.option(OPT_STARTTLS) == REP_ACK
        context = context_of(x509.keys / "ca-cert.pem", x509.keys)
        stranger.sock = context.wrap_socket(stranger.sock, server_hostname=HOST)
        assert stranger.option(OPT_STARTTLS) >= REP_ERROR  # there is no second one
        assert stranger.go() == REP_ACK
        stranger.close()


def test_nothing_said_before_tls_counts_after_it(x509: Served) -> None:
    """What somebody between the two may have put in front of it is no part of the session."""
    with counted(x509):
        stranger = Stranger(x509.port).greet()
        # Sent at once, so that nbdkit could have read both.
        stranger.sock.sendall(b"IHAVEOPT\0\0\0\5\0\0\0\0" + b"IHAVEOPT\0\0\0\3\0\0\0\0")
        said = stranger.receive(1 << 16)
        assert said[12:16] == b"\0\0\0\1"
        assert b"g1" not in said
        stranger.close()


def test_certificate_of_another_ca(x509: Served, tmp_path: Path) -> None:
    folder = Authority(tmp_path / "other").sign(tmp_path / "keys", "client")
    # It would take the server for its own.
    shutil.copy(x509.keys / "ca-cert.pem", folder)
    is_counted(x509, lambda: fails(with_certificates(folder), x509.port))
    is_logged(x509, "it shows no certificate or key that counts")


def test_certificate_that_has_ended(x509: Served, authority: Authority, tmp_path: Path) -> None:
    folder = authority.sign(tmp_path, "client", ends=LONG_AGO)
    is_counted(x509, lambda: fails(with_certificates(folder), x509.port))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_certificate(x509: Served, version: ssl.TLSVersion) -> None:
    def come() -> None:
        stranger = Stranger(x509.port)
        with suppress(ssl.SSLError, ConnectionError):
            stranger.secure(context_of(x509.keys / "ca-cert.pem", version=version))
            # With 1.3 the client is done before the server has looked.
            assert stranger.go() == 0
        stranger.close()

    is_counted(x509, come)


@pytest.mark.parametrize(
    ("version", "comes_in"),
    [
        (ssl.TLSVersion.TLSv1, False),
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_of_tls(x509: Served, version: ssl.TLSVersion, comes_in: bool) -> None:
    """Also with a certificate that counts."""
    stranger = Stranger(x509.port)
    context = context_of(x509.keys / "ca-cert.pem", x509.keys, version)
    if comes_in:
        assert stranger.secure(context).go() == REP_ACK
    else:
        with counted(x509), pytest.raises((ssl.SSLError, ConnectionError)):
            stranger.secure(context)
    stranger.close()


def is_begun(port: int, *options: str) -> bool:
    """Whether the server takes up what openssl's s_client offers with these options."""
    stranger = Stranger(port).ask_for_tls()
    stranger.sock.sendall(hello_of(*options))
    said = stranger.receive(1)
    stranger.close()
    return said == b"\x16"  # a handshake


@pytest.mark.parametrize("mode", ["x509", "psk"])
@pytest.mark.parametrize(
    ("group", "comes_far"), [("ffdhe2048", False), ("ffdhe8192", False), ("P-256", True)]
)
def test_what_would_be_costly_is_not_begun(
    request: pytest.FixtureRequest, mode: str, group: str, comes_far: bool
) -> None:
    """One kilobyte of a stranger's would cost the server up to 0.4 s of processor."""
    served = request.getfixturevalue(mode)
    with counted(served):
        assert is_begun(served.port, "-groups", group) == comes_far


PSK_1_2 = ["-tls1_2", "-psk", "00" * 16, "-psk_identity", "vm1", "-cipher"]


@pytest.mark.parametrize(
    ("cipher", "comes_far"),
    [
        ("PSK-AES128-GCM-SHA256", False),
        ("DHE-PSK-AES128-GCM-SHA256", False),
        ("ECDHE-PSK-AES128-CBC-SHA256:ECDHE-PSK-CHACHA20-POLY1305", True),
    ],
)
def test_key_that_is_taken_later_opens_no_recording(
    psk: Served, cipher: str, comes_far: bool
) -> None:
    with counted(psk):
        assert is_begun(psk.port, *PSK_1_2, cipher) == comes_far


def test_certificate_of_rsa(
    start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    """It counts, and is used to sign alone."""
    for kind in ("server", "client"):
        authority.sign(tmp_path / "keys", kind, kind_of_key=RSA)
    keys, port = tmp_path / "keys", free_port()
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=x509", f"--tls-certificates={keys}"]
    start_server(extra=options)
    connected_to(port, with_certificates(keys)).shutdown()
    assert is_begun(port, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
    assert not is_begun(port, "-tls1_2", "-cipher", "AES128-GCM-SHA256")
    assert not is_begun(port, "-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256")


def test_keys_that_the_file_has_not(psk: Served, tmp_path: Path) -> None:
    others = write_keys(tmp_path / "other.psk", "vm1", "vm9")
    is_counted(psk, lambda: fails(with_key(others, "vm1"), psk.port))
    is_counted(psk, lambda: fails(with_key(others, "vm9"), psk.port))


def test_certificate_where_keys_count(psk: Served, x509: Served) -> None:
    is_counted(psk, lambda: fails(with_certificates(x509.keys), psk.port))


def test_key_where_certificates_count(psk: Served, x509: Served) -> None:
    is_counted(x509, lambda: fails(with_key(psk.keys, "vm1"), x509.port))


# --- new keys ---


def test_new_keys_of_the_file_count_at_once(psk: Served) -> None:
    old = psk.keys.read_text()
    staying = connected_to(psk.port, with_key(psk.keys, "vm1"))
    try:
        write_keys(psk.keys, "vm1", "vm3")
        connected_to(psk.port, with_key(psk.keys, "vm3")).shutdown()
        before = psk.keys.with_name("before.psk")
        before.write_text(old)
        for name in ("vm1", "vm2"):
            is_counted(psk, partial(fails, with_key(before, name), psk.port))
        # Who is in stays in.
        staying.pwrite(DATA, PLACE)
        staying.shutdown()
    finally:
        psk.keys.write_text(old)


def test_new_certificates_count_after_a_restart(
    start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    """A new CA, for a while beside the old one: no guest is without its disk for longer than a
    restart takes."""
    keys, port = authority.sign(tmp_path / "keys", "server"), free_port()
    guest = authority.sign(tmp_path / "guest", "client")
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=x509", f"--tls-certificates={keys}"]
    server = start_server(extra=options)
    other = Authority(tmp_path / "other")
    fresh = other.sign(tmp_path / "fresh", "client")
    for folder in (keys, fresh, guest):
        both = authority.certificate.read_bytes() + other.certificate.read_bytes()
        (folder / "ca-cert.pem").write_bytes(both)
    fails(with_certificates(fresh), port)
    connected_to(port, with_certificates(guest)).shutdown()
    assert server.stop() == 0
    server.start()
    for folder in (fresh, guest):
        connected_to(port, with_certificates(folder)).shutdown()
    other.sign(keys, "server")
    assert server.stop() == 0
    server.start()
    connected_to(port, with_certificates(fresh)).shutdown()
    # Its ca-cert.pem has been written over: the old CA counts no more.
    fails(with_certificates(guest), port)


# --- what is on the wire ---


class Tapped:
    """Forwards one connection, and keeps all its bytes."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen = bytearray()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    @property
    def own_port(self) -> int:
        return int(self.listening.getsockname()[1])

    def run(self) -> None:
        client, _ = self.listening.accept()
        relay(client, socket.create_connection(("127.0.0.1", self.port)), self.seen)

    def close(self) -> None:
        self.thread.join()
        self.listening.close()


@pytest.fixture
def tapped() -> Iterator[Callable[[int], Tapped]]:
    made: list[Tapped] = []

    def tap(port: int) -> Tapped:
        made.append(Tapped(port))
        return made[-1]

    yield tap
    for each in made:
        each.close()


PATTERN = b"no page may be seen"


def exchange(client: Any) -> None:
    """Writes pages whose every 20 bytes would be known again, and reads them."""
    data = (PATTERN + b"\n") * PAGE
    for count in (PAGE, 16 * PAGE):
        client.pwrite(data[:count], PLACE)
        assert bytes(client.pread(count, PLACE)) == data[:count]
    client.shutdown()


def test_no_byte_of_a_page_is_on_the_wire(
    x509: Served, psk: Served, tapped: Callable[[int], Tapped]
) -> None:
    for served, client in (
        (x509, with_certificates(x509.keys)),
        (psk, with_key(psk.keys, "vm1")),
    ):
        tap = tapped(served.port)
        exchange(connected_to(tap.own_port, client))
        assert len(tap.seen) > 34 * PAGE
        assert PATTERN[:6] not in tap.seen


def test_without_tls_they_are(
    tmp_path_factory: pytest.TempPathFactory, tapped: Callable[[int], Tapped]
) -> None:
    """Else the test before would prove nothing."""
    port = free_port()
    options = [f"--listen=127.0.0.1:{port}"]
    with RunningServer(tmp_path_factory.mktemp("plain"), extra=options) as server:
        discard(connected(server)).shutdown()
        tap = tapped(port)
        client = nbd.NBD()
        client.connect_tcp("127.0.0.1", str(tap.own_port))
        exchange(client)
        assert PATTERN in tap.seen


# --- as the guide says ---

GUIDE = Path(__file__).parents[2] / "docs/guides/network.md"


def block_of(name: str) -> str:
    """The commands below a mark in the guide."""
    found = re.search(rf"<!-- {name} -->\s+```\n(.+?)```", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    return found[1].replace("host1.example.org", HOST)


def made_by(name: str, folder: Path) -> Path:
    folder.mkdir()
    done = run(["/bin/sh", "-ec", f"cd {folder}\n{block_of(name)}"])
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mode & 0o77 == 0 for path in folder.iterdir())
    return folder


def test_certificates_of_the_guide(start_server: StartServer, tmp_path: Path) -> None:
    keys, port = made_by("certificates", tmp_path / "keys"), free_port()
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=x509", f"--tls-certificates={keys}"]
    start_server(extra=options)
    connected_to(port, with_certificates(keys)).shutdown()


def test_revoked_as_in_the_guide(start_server: StartServer, tmp_path: Path) -> None:
    keys, port = made_by("certificates", tmp_path / "keys"), free_port()
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=x509", f"--tls-certificates={keys}"]
    server = start_server(extra=options)
    connected_to(port, with_certificates(keys)).shutdown()
    done = run(["/bin/sh", "-ec", f"cd {keys}\n{block_of('revoke')}"])
    assert done.returncode == 0, done.stderr
    assert server.stop() == 0
    server.start()
    fails(with_certificates(keys), port)
    # Others still come in.
    again = "sign client DNS:host3.example.org"
    done = run(["/bin/sh", "-ec", f"cd {keys}\n{functions_of('certificates')}\n{again}"])
    assert done.returncode == 0, done.stderr
    connected_to(port, with_certificates(keys)).shutdown()


def functions_of(name: str) -> str:
    """Of a block."""
    found = re.search(r"^sign\(\) {\n.+?^}", block_of(name), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[0]


def test_keys_of_the_guide(start_server: StartServer, tmp_path: Path) -> None:
    keys, port = made_by("keys", tmp_path / "keys") / "keys.psk", free_port()
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=psk", f"--tls-psk-file={keys}"]
    start_server(extra=options)
    connected_to(port, with_key(keys, "vm2")).shutdown()


# --- other clients ---


def qemu_object(served: Served, folder: Path) -> str:
    return f"tls-creds-x509,id=keys,dir={folder},endpoint=client,verify-peer=on"


def qemu_image(port: int) -> str:
    return f"driver=nbd,host={HOST},port={port},export=g1,tls-creds=keys"


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_qemu_img_and_qemu_io(x509: Served) -> None:
    keys = ["--object", qemu_object(x509, x509.keys), "--image-opts"]
    done = run(["qemu-img", "info", "--output=json", *keys, qemu_image(x509.port)])
    assert json.loads(done.stdout)["virtual-size"] == 64 << 20, done.stderr
    work = ["-c", "write -P 7 4M 64k", "-c", "read -P 7 4M 64k"]
    done = run(["qemu-io", *keys, *work, qemu_image(x509.port)])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_qemu_img_with_a_key(psk: Served, tmp_path: Path) -> None:
    shutil.copy(psk.keys, tmp_path / "keys.psk")
    keys = f"tls-creds-psk,id=keys,dir={tmp_path},endpoint=client,username=vm1"
    command = ["qemu-img", "info", "--object", keys, "--image-opts", qemu_image(psk.port)]
    done = run(command)
    assert "64 MiB" in done.stdout, done.stderr


@pytest.mark.skipif(shutil.which("nbdinfo") is None, reason="nbdinfo is not installed")
def test_uri_of_libnbd(x509: Served, psk: Served) -> None:
    for uri in (
        f"nbds://{HOST}:{x509.port}/g1?tls-certificates={x509.keys}",
        f"nbds://vm2@{HOST}:{psk.port}/g1?tls-psk-file={psk.keys}",
    ):
        assert run(["nbdinfo", "--size", uri]).stdout == f"{64 << 20}\n"


@pytest.mark.skipif(shutil.which("nbd-client") is None, reason="nbd-client is not installed")
def test_list_of_nbd_client(x509: Served) -> None:
    command = ["nbd-client", "-l", HOST, str(x509.port)]
    keys = ["-certfile", f"{x509.keys}/client-cert.pem", "-keyfile", f"{x509.keys}/client-key.pem"]
    ca = ["-cacertfile", f"{x509.keys}/ca-cert.pem", "-tlshostname", HOST]
    assert "g1" in run([*command, *keys, *ca]).stdout
    assert "g1" not in run(command).stdout


def test_client_takes_no_other_server_for_it(x509: Served, tmp_path: Path) -> None:
    """A client knows its server by the CA, and by the name in the certificate."""
    folder = Authority(tmp_path / "other").sign(tmp_path / "keys", "client")
    is_counted(x509, lambda: fails(with_certificates(folder), x509.port))
