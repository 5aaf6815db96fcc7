# SPDX-License-Identifier: BSD-3-Clause
"""Passwords and TLS, right ones and wrong ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.courier.carried import AWAY, STORED, name_of, written
from tests.remote.courier.conftest import StartCourier
from tests.remote.secured import SecuredStore, client_keys
from tests.remote.stores import StoreServer, needs_store
from tests.tls import Authority, needs_openssl

pytestmark = [needs_store, needs_openssl]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[StoreServer]:
    """It wants a password."""
    with StoreServer(tmp_path / "guarded", "--requirepass", "open/sesame") as server:
        yield server


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """A file of a password that is not the store's."""
    return Path(written("open/barley\n", tmp_path))


def test_the_password(guarded: StoreServer, start_courier: StartCourier, password: Path) -> None:
    password.write_text("open/sesame")
    courier = start_courier(guarded.url, password_file=str(password)).ready()
    assert courier.set(name_of(1), b"x") == STORED
    assert "sesame" not in str(courier.statuses)


def test_the_password_in_a_file_that_is_mended(
    guarded: StoreServer, start_courier: StartCourier, password: Path
) -> None:
    courier = start_courier(guarded.url, password_file=str(password))
    courier.wait_for_error("invalid username-password pair")
    password.write_text("open/sesame\n")
    courier.ready()
    assert courier.set(name_of(1), b"x") == STORED


def test_the_password_of_the_store_changes(
    guarded: StoreServer, start_courier: StartCourier, password: Path
) -> None:
    """And connections end that it was still good for."""
    password.write_text("open/sesame\n")
    courier = start_courier(guarded.url, password_file=str(password)).ready()
    with guarded.client(password="open/sesame") as client:
        client.config_set("requirepass", "open/barley")
        client.client_kill_filter(skipme=True, _type="normal")
    courier.wait_for_error("invalid username-password pair")
    password.write_text("open/barley\n")
    courier.ready()
    assert courier.set(name_of(1), b"x") == STORED


def test_the_file_of_the_password_is_of_no_use(
    guarded: StoreServer, start_courier: StartCourier, password: Path
) -> None:
    """It is not there, others can read it, it is no text: each is said, and none is the end."""
    password.unlink()
    courier = start_courier(guarded.url, password_file=str(password))
    courier.wait_for_error(f"password-file {password}: No such file or directory")
    password.write_text("open/sesame")
    password.chmod(0o644)
    courier.wait_for_error(f"password-file {password} can be read or changed by others: chmod")
    password.write_bytes(b"\xff\x00" * 100)
    password.chmod(0o600)
    courier.wait_for_error("invalid username-password pair")
    password.write_text("open/sesame")
    courier.ready()
    assert "sesame" not in str(courier.statuses)


@pytest.mark.parametrize(("user", "is_given"), [("", False), ("", True), ("nobody@", True)])
def test_no_password_or_a_wrong_one(
    guarded: StoreServer, start_courier: StartCourier, password: Path, user: str, is_given: bool
) -> None:
    url = guarded.url.replace("//", f"//{user}")
    courier = start_courier(url, **({"password_file": str(password)} if is_given else {}))
    courier.wait_for(lambda status: bool(status["error"]), "error")
    assert courier.statuses[-1]["state"] == "away"
    assert any(
        word in courier.statuses[-1]["error"].lower() for word in ("authentication", "password")
    )
    assert courier.status_of(name_of(1)) == AWAY


def test_a_user_who_may_not_get(
    guarded: StoreServer, start_courier: StartCourier, password: Path
) -> None:
    with guarded.client(password="open/sesame") as client:
        client.execute_command("ACL", "SETUSER", "guest", "on", ">guest", "+ping", "+select")
    password.write_text("guest")
    url = guarded.url.replace("//", "//guest@")
    courier = start_courier(url, password_file=str(password))
    courier.wait_for_error("NOPERM")
    assert courier.status_of(name_of(1)) == AWAY


# --- TLS ---


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def secured(tmp_path: Path, authority: Authority) -> Iterator[StoreServer]:
    """It speaks TLS only, and wants a certificate."""
    with SecuredStore(tmp_path / "secured", authority) as server:
        yield server


def test_tls(
    secured: StoreServer, authority: Authority, tmp_path: Path, start_courier: StartCourier
) -> None:
    keys = client_keys(authority, tmp_path / "keys")
    courier = start_courier(secured.url, tls=keys).ready()
    names = [name_of(number) for number in range(200)]
    for name in names:
        assert courier.set(name, name * 250) == STORED
    for begin in range(0, 200, 25):
        answers = courier.get(*names[begin : begin + 25])
        assert [a.payload for a in answers] == [n * 250 for n in names[begin : begin + 25]]


def test_an_authority_that_did_not_sign(
    secured: StoreServer, tmp_path: Path, start_courier: StartCourier
) -> None:
    keys = client_keys(Authority(tmp_path / "other"), tmp_path / "keys")
    courier = start_courier(secured.url, tls=keys)
    courier.wait_for_error("CERTIFICATE_VERIFY_FAILED")
    assert courier.status_of(name_of(1)) == AWAY


def test_a_name_that_is_not_in_the_certificate(
    secured: StoreServer, authority: Authority, tmp_path: Path, start_courier: StartCourier
) -> None:
    keys = client_keys(authority, tmp_path / "keys")
    courier = start_courier(f"rediss://127.0.0.2:{secured.port}", tls=keys)
    courier.wait_for(lambda status: bool(status["error"]), "error")
    assert courier.statuses[-1]["state"] == "away"


def test_no_certificate_where_one_is_wanted(
    secured: StoreServer, authority: Authority, start_courier: StartCourier
) -> None:
    tls = {"ca": str(authority.certificate)}
    courier = start_courier(secured.url, tls=tls)
    courier.wait_for(lambda status: bool(status["error"]), "error")
    assert courier.statuses[-1]["state"] == "away"


def test_tls_where_none_is_spoken(
    store: StoreServer, authority: Authority, start_courier: StartCourier
) -> None:
    tls = {"ca": str(authority.certificate)}
    courier = start_courier(f"rediss://localhost:{store.port}", tls=tls)
    courier.wait_for(lambda status: bool(status["error"]), "error")
    assert courier.status_of(name_of(1)) == AWAY


def test_files_that_are_not_there(secured: StoreServer, start_courier: StartCourier) -> None:
    courier = start_courier(secured.url, tls={"ca": "/nowhere.pem"})
    courier.wait_for_error("No such file")
