# SPDX-License-Identifier: BSD-3-Clause
"""doctor tells when a certificate ends, who can get at keys, and what keeps other hosts away."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from preswapd.api.kinds import split_address
from preswapd.api.messages import ServerFacts
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.doctor.keys import SOON, check_keys
from preswapd.cli.doctor.sockets import check_firewall, check_guarded, check_sockets
from tests.conftest import StartServer
from tests.ports import free_port
from tests.running import NOBODY, run, wait_until
from tests.tls import (
    LONG_AGO,
    Authority,
    Stranger,
    connected_to,
    needs_openssl,
    with_certificates,
    write_keys,
)

NOW = datetime(2020, 1, 15, tzinfo=UTC)
END = datetime(2020, 2, 1, tzinfo=UTC)
FACTS = ServerFacts(
    pid=4711,
    nbdkit="1.32.5",
    threads=1,
    threads_reason="",
    structured_replies=False,
    structured_replies_reason="",
    runtime_dir="/run/preswapd/vm1",
    shm_dir="/dev/shm/preswapd-vm1",
    state_dir="/var/lib/preswapd/vm1",
    start_time=datetime(2099, 1, 1, tzinfo=UTC).timestamp(),
    listen="192.0.2.1:10809",
    tls="x509",
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def facts(authority: Authority, tmp_path: Path) -> ServerFacts:
    """Of a server whose certificate ends at END."""
    authority.sign(tmp_path, "server", ends=LONG_AGO)
    (tmp_path / "server-key.pem").chmod(0o640)
    return replace(FACTS, tls_keys=str(tmp_path))


def found(facts: ServerFacts, now: datetime = NOW) -> list[Finding]:
    return list(check_keys("vm1", facts, now))


def of(findings: list[Finding], word: str) -> Finding:
    (one,) = [each for each in findings if word in each.text]
    return one


# --- certificates ---


@needs_openssl
@pytest.mark.parametrize(
    ("left", "status", "said"),
    [
        (SOON + timedelta(days=1), OK, "counts until 2020-02-01 00:00 UTC"),
        (timedelta(days=29), NOTE, "ends on 2020-02-01 00:00 UTC"),
        (timedelta(0), FIX, "ended on 2020-02-01 00:00 UTC: no guest gets in over TCP"),
    ],
)
def test_end_of_a_certificate(facts: ServerFacts, left: timedelta, status: str, said: str) -> None:
    finding = of(found(facts, END - left), "server-cert.pem")
    assert (finding.status, finding.text) == (status, f"{facts.tls_keys}/server-cert.pem {said}")
    assert (finding.advice is None) == (status == OK)


@needs_openssl
def test_end_of_the_ca(facts: ServerFacts) -> None:
    assert of(found(facts), "ca-cert.pem").status == OK
    assert of(found(facts, datetime(2090, 1, 1, tzinfo=UTC)), "ca-cert.pem").status == FIX


@needs_openssl
def test_end_of_the_ca_that_is_being_replaced(facts: ServerFacts) -> None:
    """Guests of the new one come in."""
    path = Path(str(facts.tls_keys), "ca-cert.pem")
    ended = Path(str(facts.tls_keys), "server-cert.pem").read_text()
    path.write_text(ended + path.read_text())
    assert of(found(facts, END + timedelta(days=1)), "ca-cert.pem").status == OK


@needs_openssl
def test_certificate_that_is_gone_or_none(facts: ServerFacts) -> None:
    path = Path(str(facts.tls_keys), "server-cert.pem")
    path.write_text("none")
    assert of(found(facts), "server-cert.pem").text == f"{path}: it holds no certificate"
    path.unlink()
    assert of(found(facts), "server-cert.pem").status == FIX
    os.mkfifo(path)
    assert of(found(facts), "server-cert.pem").text == f"{path}: it is no file"


@needs_openssl
def test_files_that_are_newer_than_the_server(facts: ServerFacts) -> None:
    assert not any("after the server's start" in each.text for each in found(facts))
    older = replace(facts, start_time=NOW.timestamp())
    os.utime(Path(str(facts.tls_keys), "server-key.pem"), (NOW.timestamp() - 9,) * 2)
    finding = of(found(older), "was changed after the server's start")
    assert finding.status == NOTE
    assert "server-cert.pem" in finding.text


@needs_openssl
def test_file_that_was_made_before_and_put_there_after(facts: ServerFacts) -> None:
    path = Path(str(facts.tls_keys), "ca-crl.pem")
    made = path.with_name("new")
    made.touch()
    os.utime(made, (NOW.timestamp(),) * 2)
    start = time.time()
    later = replace(facts, start_time=start)
    assert not any("after the server's start" in each.text for each in found(later))
    wait_until(lambda: clock_of(path.parent) > start, "the file system's clock")
    made.rename(path)
    assert of(found(later), "after the server's start").text.startswith(f"{path} was changed")


def clock_of(folder: Path) -> float:
    """It goes in steps."""
    (folder / "now").touch()
    return (folder / "now").stat().st_ctime


# --- who can read or change a key ---


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where every user gets."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def copied(facts: ServerFacts, open_folder: Path) -> Path:
    folder = Path(shutil.copytree(str(facts.tls_keys), open_folder / "keys"))
    folder.chmod(0o755)
    return folder


@needs_openssl
def test_key_of_the_certificate(facts: ServerFacts, open_folder: Path) -> None:
    folder = copied(facts, open_folder)
    there = replace(facts, tls_keys=str(folder))
    assert not any("every user" in each.text for each in found(there))
    path = folder / "server-key.pem"
    path.chmod(0o644)
    finding = of(found(there), "every user of this host can read")
    assert finding.status == FIX
    assert finding.command is not None
    assert f"chmod o= {path}" in finding.command
    # Nobody gets there.
    open_folder.chmod(0o750)
    assert not any("every user" in each.text for each in found(there))


@needs_openssl
@pytest.mark.parametrize("name", ["", "ca-cert.pem", "server-cert.pem"])
def test_what_everybody_can_change(facts: ServerFacts, open_folder: Path, name: str) -> None:
    """Who can put another CA there lets in whom he likes."""
    folder = copied(facts, open_folder)
    path = folder / name
    path.chmod(0o757)
    finding = of(found(replace(facts, tls_keys=str(folder))), "every user of this host can change")
    assert (finding.status, str(path) in finding.text) == (FIX, True)


@needs_openssl
def test_what_the_next_start_would_miss(facts: ServerFacts) -> None:
    """A restart is a bad moment to find out."""
    folder = Path(str(facts.tls_keys))
    (folder / "server-key.pem").rename(folder / "aside")
    said = of(found(facts), "server-key.pem").text
    assert said.endswith(
        "No such file or directory: from the server's next start on nobody is served over TCP"
    )
    (folder / "aside").rename(folder / "server-key.pem")
    (folder / "ca-crl.pem").symlink_to("nothing")
    assert "No such file or directory: from the" in of(found(facts), "ca-crl.pem").text


@needs_openssl
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_key_that_the_user_who_serves_cannot_read(
    facts: ServerFacts, open_folder: Path, tmp_path: Path
) -> None:
    """As one that root has put there."""
    folder = copied(facts, open_folder)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    os.chown(run_dir, NOBODY, -1)
    there = replace(facts, tls_keys=str(folder), runtime_dir=str(run_dir))
    (folder / "server-key.pem").chmod(0o600)
    finding = of(found(there), "who serves, cannot read")
    assert f"cannot read {folder}/server-key.pem" in finding.text
    assert finding.command is not None
    assert run(["sh", "-ec", finding.command]).returncode == 0
    assert not any("who serves, cannot read" in each.text for each in found(there))


def test_file_of_keys(open_folder: Path) -> None:
    path = write_keys(open_folder / "keys.psk", "vm1")
    facts = replace(FACTS, tls="psk", tls_keys=str(path))
    assert found(facts) == []
    path.chmod(0o604)
    assert [each.status for each in found(facts)] == [FIX]


def test_file_of_keys_that_has_become_wrong(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.psk", "vm1", "vm1")
    facts = replace(FACTS, tls="psk", tls_keys=str(path))
    (twice,) = found(facts)
    assert twice.status == NOTE
    assert f"{path} has the name vm1 twice" in twice.text
    path.write_text("vm1 0011\n")
    (wrong,) = found(facts)
    assert (wrong.status, f"{path}:1: a line is NAME:KEY" in wrong.text) == (FIX, True)
    path.unlink()
    (missing,) = found(facts)
    assert missing.text == f"{path}: No such file or directory: no guest gets in over TCP"


# --- the rest ---


def test_clients_that_were_refused(tmp_path: Path) -> None:
    path = write_keys(tmp_path / "keys.psk", "vm1")
    facts = replace(FACTS, tls="psk", tls_keys=str(path), tls_refused=3)
    assert [each.text.partition(" since")[0] for each in found(facts)] == [
        "3 clients over TCP were refused"
    ]


def test_nothing_without_tls() -> None:
    assert found(replace(FACTS, tls=None)) == []


@pytest.mark.parametrize(
    ("listen", "answer", "is_wrong"),
    [
        ("192.0.2.1:1", {"IPAddressAllow": "127.0.0.0/8 ::1/128"}, True),
        ("192.0.2.1:1", {"IPAddressAllow": ""}, True),
        ("192.0.2.1:1", {"IPAddressAllow": "127.0.0.0/8 192.0.2.0/24"}, False),
        ("192.0.2.1:1", {"IPAddressAllow": "127.0.0.0/8", "IPAddressDeny": ""}, False),
        ("192.0.2.1:1", {"IPAddressAllow": "127.0.0.0/8", "MainPID": "1"}, False),
        ("127.0.0.1:1", {"IPAddressAllow": "127.0.0.0/8"}, False),
        ("[::1]:1", {"IPAddressAllow": "127.0.0.0/8"}, False),
    ],
)
def test_unit_that_lets_nobody_in(listen: str, answer: Mapping[str, str], is_wrong: bool) -> None:
    def ask(unit: str, *names: str) -> dict[str, str]:
        assert unit == "preswapd@vm1.service"
        assert set(names) == {"MainPID", "IPAddressDeny", "IPAddressAllow"}
        return {"MainPID": "4711", "IPAddressDeny": "::/0 0.0.0.0/0", **answer}

    findings = list(check_firewall("vm1", replace(FACTS, listen=listen), ask))
    assert [each.status for each in findings] == [FIX] * is_wrong
    if is_wrong:
        assert "preswapd@vm1.service.d/listen.conf" in str(findings[0].advice)


@pytest.mark.parametrize(
    ("listen", "is_here"),
    [
        ("127.0.0.1:1", True),
        ("0.0.0.0:1", True),
        ("192.0.2.1:1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_address_that_is_gone(listen: str, is_here: bool) -> None:
    """The server still listens there, and does not notice."""
    facts = replace(FACTS, listen=listen)
    finding = check_guarded("vm1", facts, *split_address(listen))
    assert (finding.status, "no such address now" in finding.text) == (
        (OK, False) if is_here else (FIX, True)
    )


@needs_openssl
def test_doctor_is_no_client_that_was_refused(
    start_server: StartServer, authority: Authority, tmp_path: Path
) -> None:
    for kind in ("server", "client"):
        authority.sign(tmp_path / "keys", kind)
    port = free_port()
    options = [f"--listen=127.0.0.1:{port}", "--tls-mode=x509"]
    server = start_server(extra=[*options, f"--tls-certificates={tmp_path}/keys"])
    text = server.ctl("doctor", check=False).stdout
    assert f"clients with TLS (x509) can connect to 127.0.0.1:{port}" in text
    assert f"{tmp_path}/keys/server-cert.pem counts until 2099-12-31" in text
    connected_to(port, with_certificates(tmp_path / "keys")).shutdown()
    Stranger(port).close()
    server.wait_for_line("a client at 127.0.0.1 was refused")
    assert "1 clients over TCP" not in text
    assert server.client.facts().tls_refused == 1
    assert any(
        "can connect to" in each.text for each in check_sockets("vm1", server.client.facts())
    )
