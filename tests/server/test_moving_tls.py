# SPDX-License-Identifier: BSD-3-Clause
"""A device that moves over TCP with TLS: each of the two servers knows who the other is."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nbd
import pytest

from preswapd.preswap.moving import client
from preswapd.preswap.moving.names import LIFE, Wanted
from tests.clients import BEHIND_ZONE, connected, discard
from tests.conftest import StartServer
from tests.ports import free_port
from tests.running import RunningServer, wait_for
from tests.tls import LONG_AGO, Authority, needs_openssl, relay, write_keys

pytestmark = needs_openssl

MIB = 1 << 20
DATA = b"what a guest has swapped out".ljust(4096, b".") * 512


class Pair(NamedTuple):
    a: RunningServer
    b: RunningServer
    port: int
    keys: Path
    guest: nbd.NBD  # at a

    def uri(self, keys: Path | None = None, *, port: int = 0, more: str = "") -> str:
        place = f"nbds://localhost:{port or self.port}/g1"
        return f"{place}?tls-certificates={keys or self.keys}{more}"

    def refused(self, uri: str) -> str:
        done = self.b.ctl("create", "g1", "64M", "--from", uri, check=False)
        assert (done.returncode, done.stdout) == (4, "")
        assert self.b.json_stats()["devices"] == {}
        return str(done.stderr)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def pair(start_server: StartServer, tmp_path: Path, authority: Authority) -> Pair:
    for kind in ("server", "client"):
        authority.sign(tmp_path / "keys", kind)
    port = free_port()
    a = start_server(
        devices={"g1": "64M"},
        extra=[
            f"--listen=127.0.0.1:{port}",
            "--tls-mode=x509",
            f"--tls-certificates={tmp_path / 'keys'}",
        ],
    )
    guest = discard(connected(a, "g1"))
    guest.pwrite(DATA, BEHIND_ZONE)
    return Pair(a, start_server(devices={}), port, tmp_path / "keys", guest)


def moved(pair: Pair, uri: str) -> None:
    pair.b.ctl("create", "g1", "64M", "--from", uri)
    guest = connected(pair.b, "g1")
    assert bytes(guest.pread(len(DATA), BEHIND_ZONE)) == DATA
    guest.pwrite(DATA[:4096], BEHIND_ZONE + len(DATA))
    pair.b.ctl("pull", "g1")
    assert bytes(guest.pread(len(DATA), BEHIND_ZONE)) == DATA
    wait_for(
        lambda: pair.a.json_stats()["devices"]["g1"]["preswap_pages"], lambda pages: pages == 0
    )


@contextmanager
def overheard(port: int) -> Iterator[tuple[int, bytearray]]:
    """A port that leads to that one, and what was said there."""
    seen = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                server = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=relay, args=(client, server, seen), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()
        yield listening.getsockname()[1], seen
        listening.shutdown(socket.SHUT_RDWR)


def test_moves_and_nobody_on_the_way_reads_a_page(pair: Pair) -> None:
    with overheard(pair.port) as (port, seen):
        moved(pair, pair.uri(port=port))
    assert len(seen) > len(DATA)
    assert DATA[:28] not in seen
    # Nor which device it is, and what is asked of it.
    assert b"?pull=" not in seen
    assert b"?take=" not in seen
    assert pair.a.client.facts().tls_refused == 0


def test_name_that_the_certificate_has(pair: Pair) -> None:
    uri = pair.uri(more="&tls-hostname=localhost").replace("//localhost", "//127.0.0.1")
    moved(pair, uri)


def test_another_authority(pair: Pair, tmp_path: Path) -> None:
    """Whoever answers could be anybody."""
    strangers = Authority(tmp_path / "other").sign(tmp_path / "theirs", "client")
    assert "its certificate does not count: " in pair.refused(pair.uri(strangers))


def test_certificate_of_another_host(pair: Pair) -> None:
    assert "hostb" in pair.refused(pair.uri(more="&tls-hostname=hostb"))


def test_certificate_that_has_ended(pair: Pair, tmp_path: Path, authority: Authority) -> None:
    keys = authority.sign(tmp_path / "ended", "client", LONG_AGO)
    assert f"does not let the certificate in {keys} in" in pair.refused(pair.uri(keys))
    wait_for(lambda: pair.a.client.facts().tls_refused, lambda number: number == 1)


def without(name: str) -> Callable[[Path], None]:
    return lambda keys: (keys / name).unlink()


def not_readable(keys: Path) -> None:
    (keys / "client-key.pem").write_text("no key\n")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (without("ca-cert.pem"), "ca-cert.pem: No such file"),
        (without("client-cert.pem"), "client-cert.pem: No such file"),
        (without("client-key.pem"), "client-key.pem: No such file"),
        (not_readable, "cannot be used"),
    ],
)
def test_keys_that_are_no_use(pair: Pair, harm: Callable[[Path], None], says: str) -> None:
    harm(pair.keys)
    assert says in pair.refused(pair.uri())


def test_without_tls_where_it_is_wanted(pair: Pair) -> None:
    text = pair.refused(f"nbd://localhost:{pair.port}/g1")
    assert "does not give" in text or "it wants TLS" in text


def test_server_that_has_no_tls(pair: Pair, start_server: StartServer) -> None:
    port = free_port()
    start_server(devices={"g1": "64M"}, extra=[f"--listen=127.0.0.1:{port}"])
    assert "it has no TLS" in pair.refused(pair.uri(port=port))


def test_server_with_keys_that_both_have(
    pair: Pair, start_server: StartServer, tmp_path: Path
) -> None:
    port, keys = free_port(), write_keys(tmp_path / "keys.psk", "vm1")
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=psk", f"--tls-psk-file={keys}"]
    start_server(devices={"g1": "64M"}, extra=options)
    text = pair.refused(pair.uri(port=port))
    assert "it has no certificate" in text or "no TLS with it" in text


def test_package_was_replaced_since_the_start(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    class Replaced:
        def __getattr__(self, name: str) -> object:
            raise ModuleNotFoundError("No module named 'preswapd.preswap.moving.tls'")

    monkeypatch.setattr(client, "tls", Replaced())
    place = client.parse_uri(pair.uri())
    with pytest.raises(client.NoExportError, match=r"cannot load TLS any more .*: restart it"):
        client.Client(place, Wanted("g1", LIFE).export, 10)


def test_server_that_dawdles(pair: Pair) -> None:
    """It says yes to TLS, and nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            client, _ = listening.accept()
            client.sendall(b"NBDMAGICIHAVEOPT\0\1")
            client.recv(4 + 16)
            reply = (0x3E889045565A9).to_bytes(8, "big") + b"\0\0\0\5\0\0\0\1\0\0\0\0"
            client.sendall(reply)
            client.recv(1 << 16)
            stop.wait()
            client.close()

        stop = threading.Event()
        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert "no answer in time" in pair.refused(pair.uri(port=listening.getsockname()[1]))
        finally:
            stop.set()
            thread.join()


def test_new_keys_count_at_once(pair: Pair, authority: Authority) -> None:
    pair.b.ctl("create", "g1", "64M", "--from", pair.uri())
    guest = connected(pair.b, "g1")
    good = (pair.keys / "client-key.pem").read_bytes()
    (pair.keys / "client-key.pem").write_text("no key\n")
    with pytest.raises(nbd.Error):
        guest.pread(4096, BEHIND_ZONE)
    (pair.keys / "client-key.pem").write_bytes(good)
    wait_for(lambda: read_or_none(guest), lambda found: found == DATA[:4096])


def read_or_none(guest: nbd.NBD) -> bytes | None:
    try:
        return bytes(guest.pread(4096, BEHIND_ZONE))
    except nbd.Error:
        return None


def test_servers_without_tls_do_not_load_it(pair: Pair) -> None:
    """It is memory of each of them."""
    maps = Path(f"/proc/{pair.b.json_stats()['server']['pid']}/maps")
    assert "/_ssl." not in maps.read_text()
    pair.b.ctl("create", "g1", "64M", "--from", pair.uri())
    assert "/_ssl." in maps.read_text()
