# SPDX-License-Identifier: BSD-3-Clause
"""doctor tells what is wrong with the store of the remote tier, and what mends it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from preswapd.api.messages import RemoteStatus
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.doctor.store import check_store
from tests.conftest import StartServer
from tests.remote.secured import SecuredStore, client_keys
from tests.remote.stores import StoreServer, needs_store
from tests.running import RunningServer, typed, wait_for, wait_until
from tests.tls import Authority, needs_openssl

USE_IT = "preswapctl --instance vm1 sysctl vm.remote=default"
NODE: dict[str, Any] = {
    "address": "10.0.0.1:6379",
    "up": True,
    "error": None,
    "latency_us": 250,
    "server": "valkey",
    "version": "8.1.0",
    "maxmemory": 8 << 30,
    "used_memory": 5 << 30,
    "policy": "allkeys-lru",
    "evicted_keys": 0,
}


@pytest.fixture
def status(tmp_path: Path) -> RemoteStatus:
    """Of one that is well."""
    key = tmp_path / "remote.key"
    key.touch(mode=0o600)
    return RemoteStatus(
        url="redis://10.0.0.1",
        used=True,
        key_file=str(key),
        timeout=5.0,
        courier=4711,
        store={"state": "ok", "error": None, "nodes": [NODE]},
    )


def findings(status: RemoteStatus) -> list[Finding]:
    return list(check_store("instance vm1, store", status, USE_IT))


def with_node(status: RemoteStatus, **said: Any) -> list[Finding]:
    """What is found besides how the node is."""
    found = findings(replace(status, store={"nodes": [{**NODE, **said}]}))
    return [finding for finding in found if finding.status != OK]


def test_one_that_is_well(status: RemoteStatus) -> None:
    assert [finding.as_text() for finding in findings(status)] == [
        "ok    instance vm1, store: 10.0.0.1:6379, valkey 8.1.0, 5G in use, answers in 0.25ms"
    ]


def test_node_that_is_away(status: RemoteStatus) -> None:
    [found] = with_node(status, up=False, error="Connection refused")
    assert found.status == FIX
    assert found.text == "10.0.0.1:6379 is away, Connection refused: pages come from disk"
    [found] = findings(replace(status, store={"error": "no such host", "nodes": []}))
    assert found.text == "redis://10.0.0.1 is away, no such host: pages come from disk"


def test_store_that_is_left_alone(status: RemoteStatus) -> None:
    status = replace(status, open=True)
    [_, found] = findings(status)
    assert found.status == NOTE
    assert "got no answer within 5ms" in found.text
    [away] = with_node(status, up=False, error="Connection refused")
    assert away.text.startswith("10.0.0.1:6379 is away")


@pytest.mark.parametrize(
    ("why", "mend"),
    [
        ("NOAUTH Authentication required", "password-file"),
        ("invalid username-password pair or user is disabled", "password-file"),
        ("password-file /p can be read or changed by others: chmod o=,g-w /p", "password-file"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "ca, cert and key"),
        # It wants a certificate of its clients.
        ("Error 8 while writing to socket. EOF occurred in violation of protocol", "ca, cert and"),
        ("Error 111 connecting to 10.0.0.1:6379. Connection refused", "drop-in"),
        ("AUTH <password> called without any password configured for", "leave out password-file"),
        ("DENIED Redis is running in protected mode because", "requirepass"),
        ("NOPERM this user has no permissions to run the 'get' command", "must be let: GET, SET"),
        ("DB index is out of range", "number of a database"),
        ("SELECT is not allowed in cluster mode", "number of a database"),
        ('Protocol error, got "H" as reply type byte', "another program"),
        ("ERR unknown command 'GET', with args beginning with: 'preswapd:'", "another program"),
        ("it answers after 12.0 ms, which is later than 5 ms", "raise timeout"),
        ("CLUSTERDOWN Hash slot not served", "mend the cluster"),
    ],
)
def test_what_brings_a_node_back(status: RemoteStatus, why: str, mend: str) -> None:
    [found] = with_node(status, up=False, error=why)
    assert found.mend is not None
    assert mend in found.mend


@pytest.mark.parametrize(
    ("word", "mend"),
    [
        ("READONLY You can't write against a read only replica.", "name its master"),
        ("MISCONF Redis is configured to save RDB snapshots, but", 'save ""'),
        ("NOPERM this user has no permissions to run the 'set' command", "must be let"),
    ],
)
def test_node_that_is_there_and_takes_no_page(status: RemoteStatus, word: str, mend: str) -> None:
    """As it answers all else, nothing but this would tell."""
    [found] = with_node(status, error=word)
    assert (found.status, found.text) == (FIX, f"10.0.0.1:6379 is there, but: {word}")
    assert mend in str(found.mend)


def test_node_whose_last_error_may_pass(status: RemoteStatus) -> None:
    [found] = with_node(status, error="it does not answer within 5 ms")
    assert (found.status, found.mend) == (NOTE, None)
    # What is full and evicts nothing is told once.
    [found] = with_node(status, error="OOM command not allowed", policy="noeviction")
    assert "evicts nothing" in found.text
    [found] = with_node(status, error="OOM command not allowed")
    assert "OOM" in found.text


def test_cluster_without_some_of_its_keys(status: RemoteStatus) -> None:
    """Each of its nodes is well."""
    lacking = {"error": "no node has some of the keys", "nodes": [NODE]}
    [_, found] = findings(replace(status, store=lacking))
    assert (found.status, found.mend) == (FIX, "mend the cluster: docs/guides/store.md")
    assert "no node has some of the keys: those pages come from disk" in found.text
    # What one of them says is said of that one.
    said = replace(status, store={"error": "away", "nodes": [{**NODE, "error": "away"}]})
    assert len(findings(said)) == 2


def test_node_that_evicts_nothing(status: RemoteStatus) -> None:
    [found] = with_node(status, policy="noeviction")
    assert found.status == FIX
    assert found.command == (
        "valkey-cli -h 10.0.0.1 -p 6379 config set maxmemory-policy allkeys-lru"
    )


def test_node_without_a_bound(status: RemoteStatus) -> None:
    status = replace(status, url="rediss://10.0.0.1")
    [found] = with_node(status, maxmemory=0)
    assert found.status == FIX
    assert found.command == "valkey-cli -h 10.0.0.1 -p 6379 --tls config set maxmemory 8gb"
    [found] = with_node(status, maxmemory=0, server="redis")
    assert found.command == "redis-cli -h 10.0.0.1 -p 6379 --tls config set maxmemory 8gb"


@pytest.mark.parametrize(
    ("said", "command"),
    [
        ({"url": "unix:///run/s:1"}, "-s /run/s:1 config"),
        ({"url": "redis://[fd00::1]:7"}, "-h fd00::1 -p 7 config"),
        ({"url": "redis://me%20@h:7"}, "-h h -p 7 --user 'me ' config"),
        ({"url": "rediss://h:7"}, "-h h -p 7 --tls config"),
        (
            {"url": "rediss://h:7", "ca": "/a b", "cert": "/c", "key": "/k"},
            "-h h -p 7 --tls --cacert '/a b' --cert /c --key /k config",
        ),
    ],
)
def test_how_a_node_is_told(
    status: RemoteStatus, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], command: str
) -> None:
    monkeypatch.setattr("preswapd.cli.typed.is_root", lambda: True)
    address = said["url"].partition("//")[2].rpartition("@")[2]
    [found] = with_node(replace(status, **said), address=address, policy="noeviction")
    assert found.command == f"valkey-cli {command} set maxmemory-policy allkeys-lru"


def test_who_may_not_read_the_password_asks_root(
    status: RemoteStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preswapd.cli.typed.is_root", lambda: False)
    [found] = with_node(replace(status, password_file="/p"), policy="noeviction")
    assert found.command == (
        "sudo sh -c 'REDISCLI_AUTH=$(cat /p) valkey-cli -h 10.0.0.1 -p 6379"
        " config set maxmemory-policy allkeys-lru'"
    )


def test_node_that_does_not_tell(status: RemoteStatus) -> None:
    """As where its ACL does not let us ask."""
    unknown = dict.fromkeys(("maxmemory", "policy", "version", "used_memory", "latency_us"))
    assert with_node(status, **unknown) == []
    [found] = findings(replace(status, store={"nodes": [{**NODE, "latency_us": None}]}))
    assert found.text == "10.0.0.1:6379, valkey 8.1.0, 5G in use, answers"


def test_node_that_is_slow(status: RemoteStatus) -> None:
    [found] = with_node(status, latency_us=2600)
    assert found.status == NOTE
    assert "takes 2.6ms for an answer, and a read waits for 5ms at most" in found.text


def test_node_that_is_old(status: RemoteStatus) -> None:
    [found] = with_node(status, server="redis", version="5.0.14")
    assert "10.0.0.1:6379 is Redis 5.0.14" in found.text
    assert with_node(status, server="redis", version="7.0.15") == []


def test_key_that_others_can_read(status: RemoteStatus) -> None:
    Path(status.key_file).chmod(0o644)
    found = findings(status)[0]
    assert found.status == FIX
    assert found.command is not None
    assert typed(found.command).returncode == 0
    assert findings(status)[0].status == OK


def test_tier_that_is_off(status: RemoteStatus) -> None:
    [found] = findings(replace(status, error="the key is bad"))
    assert (found.status, found.text) == (FIX, "it is not used: the key is bad")
    found = findings(replace(status, used=False))[0]
    assert (found.text, found.command) == ("it is switched off: vm.remote is 0", USE_IT)
    [found] = findings(replace(status, courier=None, courier_error="it ended with status 2"))
    assert found.text == "there is no courier to it now, it ended with status 2"
    [found] = findings(replace(status, store=None))
    assert found.text == "redis://10.0.0.1 is being looked for"


def test_images_that_are_not_shared(status: RemoteStatus) -> None:
    (finding, *others) = findings(replace(status, image_error="/k is missing: make one"))
    assert finding.status == FIX
    assert "images are not shared: /k is missing: make one" in finding.as_text()
    assert {other.status for other in others} == {OK}


@needs_store
def test_doctor_looks_at_the_store(start_server: StartServer, tmp_path: Path) -> None:
    """And what it says to type mends it."""
    with StoreServer(tmp_path / "store") as store:
        server = start_server(extra=[f"--remote-url={store.url}"])
        wait_until(lambda: server.client.remote().store is not None, "a word of the courier")
        mends = told_to_type(server)
        assert len(mends) == 2
        for mend in mends:
            assert typed(mend).stdout == "OK\n"
        assert store("CONFIG", "GET", "maxmemory*")
        assert "allkeys-lru" in str(store("CONFIG", "GET", "maxmemory-policy"))


@needs_store
@needs_openssl
def test_doctor_speaks_to_a_guarded_store(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS, a certificate and a password, which is in none of its words."""
    password = tmp_path / "the store's password"
    password.touch(mode=0o600)
    password.write_text("open sesame\n")
    authority = Authority(tmp_path / "authority")
    with SecuredStore(tmp_path / "store", authority, "--requirepass", "open sesame") as store:
        keys = client_keys(authority, tmp_path / "keys")
        options = [f"--remote-{name}={path}" for name, path in keys.items()]
        options += [f"--remote-url={store.url}", f"--remote-password-file={password}"]
        server = start_server(extra=[*options, "--remote-timeout=1s"])
        mends = wait_for(lambda: told_to_type(server), bool)
        status = server.client.remote()
        assert len(mends) == 2
        for mend in mends:
            assert "sesame" not in mend
            assert typed(mend).stdout == "OK\n"
        monkeypatch.setattr("preswapd.cli.typed.is_root", lambda: False)
        commands = [each.command for each in findings(status) if each.command]
        assert len(commands) == 2
        for command in commands:
            assert command.startswith("sudo sh -c ")
            assert typed(command.removeprefix("sudo ")).stdout == "OK\n"
        with store.client(password="open sesame") as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
            assert client.config_get("maxmemory") == {"maxmemory": str(8 << 30)}


def told_to_type(server: RunningServer) -> list[str]:
    lines = server.ctl("doctor", check=False).stdout.splitlines()
    return [line.strip().partition(": ")[2] for line in lines if "-cli -h " in line]
