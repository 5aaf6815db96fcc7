# SPDX-License-Identifier: BSD-3-Clause
"""TlsKeys of TLS that cannot be used are told before nbdkit has them, and keep no guest waiting."""

import os
import shutil
from pathlib import Path

import nbd
import pytest

from preswapd.api.kinds import PSK, X509
from preswapd.errors import RefusedError
from preswapd.host import plain_files
from preswapd.host.nbdkit import probe
from preswapd.server import keys
from preswapd.server.config.reach import TlsKeys
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected, discard
from tests.conftest import StartServer
from tests.ports import free_port
from tests.tls import (
    LONG_AGO,
    Authority,
    connected_to,
    needs_openssl,
    with_certificates,
    write_keys,
)

KEY = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def folder(authority: Authority, tmp_path: Path) -> Path:
    return authority.sign(tmp_path / "keys", "server")


@pytest.fixture(scope="module")
def nbdkit() -> str:
    return probe().path


def complaint(found: TlsKeys, nbdkit: str) -> str:
    with pytest.raises(RefusedError) as refused:
        keys.check(found, nbdkit)
    return str(refused.value)


# --- certificates ---


@needs_openssl
def test_certificates_that_can_be_used(folder: Path, nbdkit: str) -> None:
    keys.check(TlsKeys(X509, folder), nbdkit)


@needs_openssl
@pytest.mark.parametrize("name", keys.CERTIFICATES)
def test_one_is_missing(folder: Path, nbdkit: str, name: str) -> None:
    (folder / name).unlink()
    said = complaint(TlsKeys(X509, folder), nbdkit)
    assert said == f"{folder / name}: No such file or directory"


@needs_openssl
@pytest.mark.parametrize("name", keys.CERTIFICATES)
def test_one_is_damaged(folder: Path, nbdkit: str, name: str) -> None:
    (folder / name).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    said = complaint(TlsKeys(X509, folder), nbdkit)
    assert said.startswith(f"{folder} cannot be used: GnuTLS error: loading")
    assert name in said


@needs_openssl
def test_one_that_has_ended_is_told(folder: Path, authority: Authority, nbdkit: str) -> None:
    """It can be used, and no client takes it."""
    assert list(keys.doubts(TlsKeys(X509, folder))) == []
    authority.sign(folder, "server", ends=LONG_AGO)
    keys.check(TlsKeys(X509, folder), nbdkit)
    assert list(keys.doubts(TlsKeys(X509, folder))) == [
        f"{folder}/server-cert.pem ended on 2020-02-01: no guest gets in over TCP"
    ]


@needs_openssl
def test_one_ca_of_two_has_ended(folder: Path, authority: Authority) -> None:
    """The other one's guests come in."""
    ended = authority.sign(folder.with_name("old"), "server", ends=LONG_AGO) / "server-cert.pem"
    ca = folder / "ca-cert.pem"
    ca.write_bytes(ended.read_bytes() + ca.read_bytes())
    assert list(keys.doubts(TlsKeys(X509, folder))) == []
    ca.write_bytes(ended.read_bytes())
    assert [f"{ca} ended on" in each for each in keys.doubts(TlsKeys(X509, folder))] == [True]


@needs_openssl
def test_list_of_the_revoked_that_cannot_be_read(folder: Path, nbdkit: str) -> None:
    """nbdkit takes it for none, and lets them in."""
    path = folder / keys.REVOKED
    path.symlink_to(folder / "nothing")
    said = complaint(TlsKeys(X509, folder), nbdkit)
    assert said == f"{path}: No such file or directory"
    path.unlink()
    path.touch()
    assert "ca-crl.pem" in complaint(TlsKeys(X509, folder), nbdkit)


@needs_openssl
@pytest.mark.parametrize("name", [*keys.CERTIFICATES, keys.REVOKED])
def test_pipe_in_the_place_of_one(folder: Path, nbdkit: str, name: str) -> None:
    """Guests of the Unix socket would wait with it for its other end."""
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    said = complaint(TlsKeys(X509, folder), nbdkit)
    assert said == f"{folder / name}: it is no file"


@needs_openssl
def test_key_of_another_certificate(folder: Path, authority: Authority, nbdkit: str) -> None:
    other = authority.sign(folder / "other", "server")
    shutil.copy(other / "server-key.pem", folder)
    assert "server-key.pem" in complaint(TlsKeys(X509, folder), nbdkit)


# --- keys ---


def test_file_of_keys(tmp_path: Path, nbdkit: str) -> None:
    path = tmp_path / "keys.psk"
    path.write_text(f"# guests\nvm1:{KEY}\n\nvm 2:{KEY}{KEY}")
    keys.check(TlsKeys(PSK, path), nbdkit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " has no key: write a line NAME:KEY for each client"),
        ("# none\n", " has no key"),
        (f"vm1:{KEY}\nvm2\n", ":2: a line is NAME:KEY"),
        (f"vm1:{KEY}x\n", ":1: a line is NAME:KEY, and KEY an even number of hexadecimal digits"),
        (f"vm1:{KEY}0\n", ":1: a line is NAME:KEY"),
        (f"vm1:{KEY}\r\n", ":1: a line is NAME:KEY"),
        (f":{KEY}\n", ":1: a line is NAME:KEY"),
        ("vm1:\n", ":1: a line is NAME:KEY"),
        ("vm1:00112233\n", ":1: the key is too short to keep anybody out"),
    ],
)
def test_file_of_keys_that_is_wrong(tmp_path: Path, nbdkit: str, text: str, said: str) -> None:
    path = tmp_path / "keys.psk"
    path.write_bytes(text.encode())
    complained = complaint(TlsKeys(PSK, path), nbdkit)
    assert complained.startswith(f"{path}{said}")
    assert KEY not in complained


def test_file_of_keys_that_is_missing(tmp_path: Path, nbdkit: str) -> None:
    path = tmp_path / "keys.psk"
    assert complaint(TlsKeys(PSK, path), nbdkit) == f"{path}: No such file or directory"


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "long"])
def test_file_of_keys_that_is_none(tmp_path: Path, nbdkit: str, kind: str) -> None:
    path = tmp_path / "keys.psk"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "long":
            path.touch()
            os.truncate(path, 1 << 40)
    said = complaint(TlsKeys(PSK, path), nbdkit)
    assert said.removeprefix(f"{path}: ") in ("it is no file", "Is a directory", "it is too long")


def test_name_that_is_there_twice(tmp_path: Path, nbdkit: str) -> None:
    path = write_keys(tmp_path / "keys.psk", "vm1", "vm2", "vm1")
    keys.check(TlsKeys(PSK, path), nbdkit)
    assert list(keys.doubts(TlsKeys(PSK, path))) == [
        f"{path} has the name vm1 twice: the first line counts alone"
    ]


def test_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_keys(tmp_path / "keys.psk", "vm1")

    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(plain_files, "read", denied)
    said = complaint(TlsKeys(PSK, path), "nbdkit")
    assert said == f"{path}: Permission denied: let user {os.geteuid()} read it, and nobody else"


# --- the versions of TLS ---


def test_hosts_own_policy_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(keys.POLICY_VARIABLE, raising=False)
    monkeypatch.setattr(keys, "SYSTEM_POLICY", tmp_path / "config")
    assert keys.environment() == {keys.POLICY_VARIABLE: str(keys.POLICY)}
    (tmp_path / "config").write_text("[global]\noverride-mode = allowlist\n")
    assert keys.environment() == {}
    (tmp_path / "config").write_bytes(b"\xff")
    assert keys.environment() == {}
    (tmp_path / "config").unlink()
    monkeypatch.setenv(keys.POLICY_VARIABLE, "/etc/mine")
    assert keys.environment() == {}


UBUNTUS = """\
[overrides]
disabled-version = tls1.0
disabled-version = tls1.1
disabled-version = dtls0.9
disabled-version = dtls1.0

"""


@pytest.mark.parametrize(
    ("policy", "ours"),
    [
        ("", True),
        ("# Nothing.\n", True),
        (UBUNTUS, True),
        (UBUNTUS.replace(" = ", "="), True),
        (UBUNTUS + "insecure-hash = sha1\n", False),
        (UBUNTUS.replace("overrides", "global"), False),
    ],
)
def test_policy_that_ours_has_too_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, policy: str, ours: bool
) -> None:
    monkeypatch.delenv(keys.POLICY_VARIABLE, raising=False)
    monkeypatch.setattr(keys, "SYSTEM_POLICY", tmp_path / "config")
    (tmp_path / "config").write_text(policy)
    assert bool(keys.environment()) == ours


# --- a server ---


@needs_openssl
def test_bad_keys_keep_no_guest_from_its_disk(start_server: StartServer, folder: Path) -> None:
    guest = folder.with_name("guest")
    shutil.copytree(folder, guest)
    for kind in ("cert", "key"):
        shutil.copy(folder / f"server-{kind}.pem", guest / f"client-{kind}.pem")
    good = (folder / "server-key.pem").read_bytes()
    (folder / "server-key.pem").write_text("no key")
    port = free_port()
    options = [f"--listen=0.0.0.0:{port}", "--tls-mode=x509", f"--tls-certificates={folder}"]
    server = start_server(extra=options)
    discard(connected(server)).pwrite(bytes([7]) * PAGE, 1 << 20)
    assert f"{port}" not in server.wait_for_line("ready")
    line = server.wait_for_line(f"{folder} cannot be used")
    assert f"guests are served at {server.nbd_socket} alone, and nobody over TCP" in line
    error = server.client.facts().listen_error
    assert error is not None
    assert error.startswith(f"{folder} cannot be used: GnuTLS error")
    doctor = server.ctl("doctor", check=False).stdout
    assert f"cannot connect to 0.0.0.0:{port}: {folder} cannot be used" in doctor
    assert "start the server again, which loses no page" in doctor
    with pytest.raises(nbd.Error):
        connected_to(port, with_certificates(guest))
    # Nor in the clear.
    plain = nbd.NBD()
    with pytest.raises(nbd.Error):
        plain.connect_tcp("127.0.0.1", str(port))
    (folder / "server-key.pem").write_bytes(good)
    assert server.stop() == 0
    server.start()
    client = connected_to(port, with_certificates(guest))
    assert bytes(client.pread(PAGE, 1 << 20)) == bytes([7]) * PAGE
    client.shutdown()
