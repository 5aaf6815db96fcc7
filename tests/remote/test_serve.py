# SPDX-License-Identifier: BSD-3-Clause
"""A real server with a real store: what was written back is read from there, or from disk."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected, discard
from tests.conftest import StartServer
from tests.ports import free_port
from tests.preswap.disk_model import pages_of
from tests.remote.secured import SecuredStore, client_keys
from tests.remote.stores import StoreServer, needs_store
from tests.running import RunningServer, wait_for, wait_until
from tests.tls import Authority, needs_openssl

pytestmark = needs_store

PAGES = 400
# On a busy machine an answer takes its time, and none of these tests is about that.
PATIENT = "--remote-timeout=1s"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreServer]:
    with StoreServer(tmp_path / "store") as running:
        yield running


@pytest.fixture
def server(start_server: StartServer, store: StoreServer) -> RunningServer:
    """One that has found the store."""
    started = start_server(extra=[f"--remote-url={store.url}", PATIENT])
    found(started)
    return started


def remote(server: RunningServer) -> dict[str, Any]:
    figures: dict[str, Any] = server.client.stats()["remote"]  # type: ignore[assignment]
    return figures


def found(server: RunningServer) -> None:
    def is_there() -> bool:
        said = server.client.remote().store
        return said is not None and said["state"] == "ok"

    wait_until(is_there, "the server to find its store")
    assert remote(server)["remote_nodes_up"] == 1


def disk_reads(server: RunningServer) -> int:
    return server.client.stats()["devices"]["g1"]["disk_reads"]


def guest_of(server: RunningServer) -> Any:
    return discard(connected(server))


def write(client: Any, tag: int) -> bytes:
    data = pages_of(tag, PAGES * PAGE)
    client.pwrite(data, BEHIND_ZONE)
    return data


def read(client: Any) -> bytes:
    return bytes(client.pread(PAGES * PAGE, BEHIND_ZONE))


def to_disk(server: RunningServer) -> None:
    server.ctl("shrink", "0")


def to_store(server: RunningServer) -> None:
    """To disk, and all of it has arrived there too."""
    before = remote(server)["remote_sets"]
    to_disk(server)
    wait_for(lambda: remote(server)["remote_sets"] - before, lambda sets: sets == PAGES)


def all_answered(server: RunningServer, pages: int) -> None:
    """Of so many that went out, none is still queued: until then it would be read from there, and
    could yet arrive at a store that has come back."""
    names = ("remote_sets", "remote_sets_dropped", "remote_sets_refused")
    wait_for(lambda: sum(remote(server)[name] for name in names), lambda n: n == pages)


def test_what_is_written_back_is_read_from_the_store(server: RunningServer) -> None:
    client = guest_of(server)
    data = write(client, 1)
    to_store(server)
    before = disk_reads(server)
    assert remote(server)["remote_pages"] == PAGES
    assert read(client) == data
    figures = remote(server)
    assert figures["remote_reads"] == PAGES
    assert server.client.stats()["devices"]["g1"]["remote_reads"] == PAGES
    assert figures["latency"]["get"]["count"] > 0
    assert disk_reads(server) == before


def test_a_write_is_never_undone_by_the_store(server: RunningServer) -> None:
    client = guest_of(server)
    write(client, 1)
    to_store(server)
    data = write(client, 2)
    assert read(client) == data
    to_store(server)
    assert read(client) == data


def test_store_sees_no_page(server: RunningServer, store: StoreServer) -> None:
    client = guest_of(server)
    text = b"a guest's secret, over and over. ".ljust(64, b".") * (PAGE // 64)
    client.pwrite(text * PAGES, BEHIND_ZONE)
    to_store(server)
    keys = store("KEYS", "preswapd:*")
    assert len(keys) == PAGES
    values = [store("GET", key) for key in keys]
    # Equal pages cannot be told from others.
    assert len(set(values)) == PAGES
    assert not any(b"secret" in value or b"...." in value for value in values)
    # And they do not stay for good.
    assert 0 < store("PTTL", keys[0]) <= 86400 * 1000


def test_store_that_is_killed(server: RunningServer, store: StoreServer) -> None:
    """Every byte comes from disk; and what is written back once it is there again, from there."""
    client = guest_of(server)
    data = write(client, 1)
    to_store(server)
    store.kill()
    assert read(client) == data
    wait_until(lambda: remote(server)["remote_nodes_up"] == 0, "the server to miss its store")
    assert remote(server)["remote_reads"] == 0
    data = write(client, 2)
    to_disk(server)
    # Some of them may still be queued, and be read from there.
    assert read(client) == data
    all_answered(server, 2 * PAGES)
    store.start()
    found(server)
    data = write(client, 3)
    to_store(server)
    before = remote(server)["remote_reads"]
    assert read(client) == data
    assert remote(server)["remote_reads"] == before + PAGES


def test_store_that_hangs(start_server: StartServer, store: StoreServer) -> None:
    server = start_server(extra=[f"--remote-url={store.url}", "--remote-timeout=100ms"])
    found(server)
    client = guest_of(server)
    data = write(client, 1)
    to_store(server)
    store.pause()
    assert read(client) == data
    assert remote(server)["remote_reads"] == 0
    store.go_on()


def test_store_that_has_dropped_it_all(server: RunningServer, store: StoreServer) -> None:
    client = guest_of(server)
    data = write(client, 1)
    to_store(server)
    store("FLUSHALL")
    assert read(client) == data
    assert remote(server)["remote_misses"] == PAGES


def test_server_that_is_there_before_its_store(start_server: StartServer, tmp_path: Path) -> None:
    store = StoreServer(tmp_path / "store", port=free_port())
    server = start_server(extra=[f"--remote-url={store.url}", PATIENT])
    client = guest_of(server)
    data = write(client, 1)
    to_disk(server)
    assert read(client) == data
    all_answered(server, PAGES)
    with store:
        found(server)
        data = write(client, 2)
        to_store(server)
        before = remote(server)["remote_reads"]
        assert read(client) == data
        assert remote(server)["remote_reads"] == before + PAGES
        wait_until(lambda: "answers" in server.log, "a word about it in the log")


def test_sysctl_switches_it_off(server: RunningServer) -> None:
    client = guest_of(server)
    data = write(client, 1)
    to_store(server)
    assert server.ctl("sysctl", "vm.remote=0").stdout == "vm.remote = 0\n"
    assert read(client) == data
    assert remote(server)["remote_reads"] == 0
    data = write(client, 2)
    to_disk(server)
    assert read(client) == data
    assert remote(server)["remote_sets"] == PAGES
    server.restart()
    assert server.ctl("sysctl", "-n", "vm.remote").stdout == "0\n"
    # Not 1, which would be kept, and be of no use to a start without a store.
    assert "sysctl vm.remote=default" in server.ctl("doctor", check=False).stdout
    server.ctl("sysctl", "vm.remote=default")
    found(server)
    client = connected(server)
    data = write(client, 3)
    to_store(server)
    assert read(client) == data
    assert remote(server)["remote_reads"] == PAGES


# --- the courier ---


def courier(server: RunningServer) -> int:
    """Its process, once there is one."""
    pid = wait_for(lambda: server.client.remote().courier, lambda pid: pid is not None)
    assert pid is not None
    return pid


def test_courier_that_is_killed(server: RunningServer) -> None:
    client = guest_of(server)
    data = write(client, 1)
    to_store(server)
    os.kill(courier(server), signal.SIGKILL)
    assert read(client) == data
    wait_until(lambda: remote(server)["remote_courier_starts"] == 2, "another courier")
    found(server)
    data = write(client, 2)
    to_store(server)
    assert read(client) == data
    assert remote(server)["remote_reads"] >= PAGES


def test_courier_that_hangs_is_no_wait(start_server: StartServer, store: StoreServer) -> None:
    server = start_server(extra=[f"--remote-url={store.url}", "--remote-timeout=50ms"])
    found(server)
    client = guest_of(server)
    data = write(client, 1)
    to_store(server)
    os.kill(courier(server), signal.SIGSTOP)
    assert read(client) == data
    data = write(client, 2)
    to_disk(server)
    assert read(client) == data


def test_courier_has_nothing_of_the_server(server: RunningServer) -> None:
    """Of its files: neither NBD's socket, which would stay open beyond a server, nor a lock, nor
    pages; and of its secrets none."""
    pid = courier(server)
    places = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    own = {place for place in places if not place.startswith(("socket:", "pipe:", "anon_inode:"))}
    # libffi 3.8 keeps its own file open.
    own = {place for place in own if not Path(place).name.startswith("libffi.so.")}
    assert own <= {"/dev/null", str(server.log_file)}
    sockets = {place for place in places if place.startswith("socket:")}
    ours = {os.readlink(path) for path in Path(f"/proc/{server.pid}/fd").iterdir()}
    assert not sockets & ours
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert (server.state_dir / "remote.key").read_bytes() not in command
    assert b"LISTEN_FDS" not in Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_server_that_ends_and_starts(server: RunningServer, end: signal.Signals) -> None:
    """What the store has is of no use to the next one, and every byte is right; the courier ends
    with its server."""
    client = guest_of(server)
    data = write(client, 1)
    to_store(server)
    pid = courier(server)
    server.stop(end)
    wait_until(lambda: is_gone(pid), "the courier to end")
    server.start()
    assert courier(server) != pid
    found(server)
    client = connected(server)
    assert read(client) == data
    assert remote(server)["remote_reads"] == 0
    data = write(client, 2)
    to_store(server)
    assert read(client) == data
    assert remote(server)["remote_reads"] == PAGES


def is_gone(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


# --- its secrets ---


def test_store_with_a_password(start_server: StartServer, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("s3cret\n")
    with StoreServer(tmp_path / "store", "--requirepass", "s3cret") as store:
        url, file = f"--remote-url={store.url}", f"--remote-password-file={password}"
        server = start_server(extra=[url, file, PATIENT])
        found(server)
        for process in (server.pid, courier(server)):
            assert b"s3cret" not in Path(f"/proc/{process}/cmdline").read_bytes()
        assert "s3cret" not in str(server.client.remote())


def test_password_that_is_mended(start_server: StartServer, tmp_path: Path) -> None:
    """A word about it, and neither server nor courier has to be started again."""
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("s3cre\n")
    with StoreServer(tmp_path / "store", "--requirepass", "s3cret") as store:
        url, file = f"--remote-url={store.url}", f"--remote-password-file={password}"
        server = start_server(extra=[url, file, PATIENT])
        wrong = "invalid username-password pair"
        wait_until(lambda: wrong in server.log, "a word about the password")
        password.write_text("s3cret\n")
        found(server)
        assert server.log.count(wrong) == 1
        assert server.client.remote().courier_starts == 1
        client = guest_of(server)
        data = write(client, 1)
        to_store(server)
        assert read(client) == data
        assert remote(server)["remote_reads"] == PAGES


@needs_openssl
def test_store_with_tls(start_server: StartServer, tmp_path: Path) -> None:
    """And with a password, and certificates of both: from a write to a read of all of it."""
    authority, password = Authority(tmp_path / "authority"), tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text("s3cret")
    with SecuredStore(tmp_path / "store", authority, "--requirepass", "s3cret") as store:
        keys = client_keys(authority, tmp_path / "keys")
        options = [f"--remote-{name}={path}" for name, path in keys.items()]
        options += [f"--remote-url={store.url}", f"--remote-password-file={password}"]
        server = start_server(extra=[*options, PATIENT])
        found(server)
        client = guest_of(server)
        data = write(client, 1)
        to_store(server)
        before = disk_reads(server)
        assert read(client) == data
        assert remote(server)["remote_reads"] == PAGES
        assert disk_reads(server) == before


@needs_openssl
def test_store_that_another_authority_has_signed(start_server: StartServer, tmp_path: Path) -> None:
    """It is told nothing, the log tells it once, and `ca` that is put right is enough."""
    authority, other = Authority(tmp_path / "authority"), Authority(tmp_path / "other")
    with SecuredStore(tmp_path / "store", authority, "--tls-auth-clients", "no") as store:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(other.certificate.read_bytes())
        server = start_server(extra=[f"--remote-url={store.url}", f"--remote-ca={ca}", PATIENT])
        refused = "CERTIFICATE_VERIFY_FAILED"
        wait_until(lambda: refused in server.log, "a word about the certificate")
        client = guest_of(server)
        data = write(client, 1)
        to_disk(server)
        assert read(client) == data
        all_answered(server, PAGES)
        assert remote(server)["remote_sets"] == 0
        assert store("DBSIZE") == 0
        ca.write_bytes(authority.certificate.read_bytes())
        found(server)
        assert server.log.count(refused) == 1
        data = write(client, 2)
        to_store(server)
        before = remote(server)["remote_reads"]
        assert read(client) == data
        assert remote(server)["remote_reads"] == before + PAGES


def test_key_that_others_can_read(start_server: StartServer, store: StoreServer) -> None:
    """Guests have their swap; the tier is off until it is mended."""
    server = start_server(extra=[f"--remote-url={store.url}", PATIENT])
    key = server.state_dir / "remote.key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    server.restart()
    status = server.client.remote()
    assert status.url == store.url
    assert status.error == f"{key} can be read or changed by others: chmod o=,g-w {key}"
    assert f"the remote tier is off: {status.error}" in server.log
    assert remote(server)["remote_used"] is False
    refused = server.ctl("sysctl", "vm.remote=1", check=False)
    assert (refused.returncode, "no store is in use" in refused.stderr) == (2, True)
    client = guest_of(server)
    data = write(client, 1)
    to_disk(server)
    assert read(client) == data


def test_status_tells_of_server_and_store(server: RunningServer, store: StoreServer) -> None:
    status = server.client.remote()
    assert (status.url, status.used, status.error) == (store.url, True, None)
    assert (status.timeout, status.max, status.ttl) == (1000, 0, 86400)
    assert (status.courier_starts, status.courier_error) == (1, None)
    assert status.store is not None
    assert status.store["state"] == "ok"
    [node] = status.store["nodes"]
    assert node["up"]
    assert node["policy"] == "noeviction"


# --- where there is none ---


def test_without_a_store_there_is_nothing_of_it(start_server: StartServer) -> None:
    server = start_server()
    assert "remote" not in server.client.stats()
    assert server.client.remote().url is None
    assert not (server.state_dir / "remote.key").exists()
    assert not Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    # Nor is libcrypto loaded, which would take memory of each instance.
    loaded = Path(f"/proc/{server.pid}/maps").read_text()
    assert "_device" in loaded
    assert "libcrypto" not in loaded
    assert "/_remote" not in loaded
    assert server.ctl("sysctl", "-n", "vm.remote").stdout == "0\n"
