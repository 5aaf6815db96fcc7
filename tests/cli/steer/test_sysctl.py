# SPDX-License-Identifier: BSD-3-Clause
"""`sysctl`, `freeze`, `thaw`: named values, read and set as sysctl(8) does it."""

import json

import nbd
import pytest

from preswapd.cli.instances import Instances
from preswapd.cli.invocation import Invocation
from preswapd.cli.steer.sysctl import Assignment, Change
from preswapd.errors import UsageError
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import RunningServer

MIB = 1 << 20


def written(server: RunningServer, export: str, pages: int, at: int = 0) -> nbd.NBD:
    client = connected(server, export)
    text = b"".join(f"{export} {page:9}".encode().ljust(16, b".") * 256 for page in range(pages))
    client.pwrite(text, BEHIND_ZONE + at * PAGE)
    return client


def noise(server: RunningServer, export: str, mebibytes: int) -> nbd.NBD:
    """Pages that do not compress."""
    client = connected(server, export)
    with open("/dev/urandom", "rb") as source:
        for number in range(mebibytes):
            client.pwrite(source.read(MIB), BEHIND_ZONE + number * MIB)
    return client


def test_all_keys(start_server: StartServer) -> None:
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    written(server, "g1", 100)
    lines = server.ctl("sysctl", "-a").stdout.splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [
        "vm.preswap",
        "vm.preswap.g1",
        "vm.preswap.g2",
        "preswap.default.pool_limit",
        "preswap.default.frozen",
        "preswap.default.g1.compress",
        "preswap.default.g1.quota",
        "preswap.default.g2.compress",
        "preswap.default.g2.quota",
    ]
    assert lines[:3] == ["vm.preswap = 100", "vm.preswap.g1 = 100", "vm.preswap.g2 = 0"]
    values = json.loads(server.ctl("--json", "sysctl", "-a").stdout)
    assert values["preswap.default.g1.quota"] == "unlimited"
    assert values["preswap.default.pool_limit"] == server.json_stats()["tmem"]["mem_limit"]


def test_several_keys_and_values_only(server: RunningServer) -> None:
    said = server.ctl("sysctl", "-n", "vm.preswap", "preswap.default.frozen=1").stdout
    assert said == "0\n1\n"
    said = server.ctl("--json", "sysctl", "vm.preswap", "preswap.default.g1.quota=8M").stdout
    assert json.loads(said) == {"vm.preswap": 0, "preswap.default.g1.quota": 2048}


def test_shrink_of_one_device(start_server: StartServer) -> None:
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    written(server, "g1", 100)
    written(server, "g2", 100)
    assert server.ctl("sysctl", "vm.preswap.g2=0").stdout == "vm.preswap.g2 = 0\n"
    assert server.ctl("sysctl", "-n", "vm.preswap").stdout == "100\n"


def test_lower_pool_limit_gives_memory_back(server: RunningServer) -> None:
    client = noise(server, "g1", 16)
    before = bytes(client.pread(16 * MIB, BEHIND_ZONE))
    assert server.arena.stat().st_blocks * 512 > 16 * MIB
    assert server.ctl("sysctl", "preswap.default.pool_limit=8M").stdout.endswith(f"= {8 * MIB}\n")
    assert server.arena.stat().st_blocks * 512 <= 8 * MIB
    assert bytes(client.pread(16 * MIB, BEHIND_ZONE)) == before
    noise(server, "g1", 16)
    assert server.arena.stat().st_blocks * 512 <= 8 * MIB


def test_lower_quota_sends_its_pages_to_disk(server: RunningServer) -> None:
    client = written(server, "g1", 100)
    before = bytes(client.pread(100 * PAGE, BEHIND_ZONE))
    done = server.ctl("sysctl", "preswap.default.g1.quota=40K")
    assert (done.stdout, done.stderr) == ("preswap.default.g1.quota = 10\n", "")
    assert server.json_stats()["devices"]["g1"]["preswap_pages"] == 10
    assert bytes(client.pread(100 * PAGE, BEHIND_ZONE)) == before
    assert server.ctl("shrink", "--status").stdout == (
        "the last shrink, to fit preswap.default.g1.quota, is done:"
        " 90 pages (360K) moved, 10 pages (40K) left\n"
    )
    status = json.loads(server.ctl("--json", "shrink", "--status").stdout)
    assert (status["setting"], status["waiting"]) == ("preswap.default.g1.quota", [])


def test_settings_outlive_a_kill(server: RunningServer) -> None:
    server.ctl("sysctl", "preswap.default.pool_limit=8M", "preswap.default.g1.quota=10")
    server.kill()
    server.start()
    written(server, "g1", 100)
    stats = server.json_stats()
    assert (stats["tmem"]["mem_limit"], stats["devices"]["g1"]["preswap_pages"]) == (8 * MIB, 10)
    assert stats["sysctl"]["preswap.default.g1.quota"] == 10


def test_freeze_and_thaw(server: RunningServer) -> None:
    assert server.ctl("freeze").stdout == "default is frozen: new pages go to disk\n"
    client = written(server, "g1", 10)
    assert server.json_stats()["devices"]["g1"]["preswap_pages"] == 0
    assert bytes(client.pread(2, BEHIND_ZONE)) == b"g1"
    assert json.loads(server.ctl("--json", "thaw").stdout) == {"preswap.default.frozen": 0}
    written(server, "g1", 10)
    assert server.json_stats()["devices"]["g1"]["preswap_pages"] == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a key, or -a for all"),
        (["-a", "vm.preswap"], "-a shows all keys: give neither keys nor -w with it"),
        (["-w", "preswap.default.frozen"], "-w needs an assignment"),
        (["preswap.default.frozen=2"], "preswap.default.frozen: it must be 0 or 1"),
        (
            ["preswap.default.g1.compress=gzip"],
            "preswap.default.g1.compress: 'gzip' is not a codec: the choices are lz4, zstd, none",
        ),
        (
            ["preswap.default.pool_limit=1K"],
            "preswap.default.pool_limit: a pool must be at least 4M",
        ),
        (["vm.preswap.g9=x"], "unknown key 'vm.preswap.g9'"),
        (["preswap.other.frozen=1"], "unknown key 'preswap.other.frozen'"),
        (["vm.preswap.g1=x"], "vm.preswap.g1: "),
        (["vm.preswap", "=", "0"], "an assignment is one word: KEY=VALUE"),
        (["preswap.default.frozen=1", "vm.bogus"], "unknown key 'vm.bogus'"),
        (["preswap.default.frozen=1", "vm.preswap=x"], "vm.preswap: "),
    ],
)
def test_mistakes_are_told(server: RunningServer, arguments: list[str], message: str) -> None:
    done = server.ctl("sysctl", *arguments, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert server.json_stats()["sysctl"]["preswap.default.frozen"] == 0


def test_json_tells_what_was_set_before_a_failure(server: RunningServer) -> None:
    done = server.ctl(
        "--json", "sysctl", "preswap.default.frozen=1", "preswap.default.g1.quota=x", check=False
    )
    assert (done.returncode, json.loads(done.stdout)) == (2, {"preswap.default.frozen": 1})
    assert done.stderr.startswith("preswapctl: preswap.default.g1.quota: ")


def test_device_that_goes_before_its_key_is_read(server: RunningServer) -> None:
    """The shrink before it may take minutes."""
    server.ctl("create", "g9", "1M")
    invocation = Invocation(Instances(runtime_dir=server.runtime_dir), json=False)
    change = Change.of(invocation, Assignment("vm.preswap.g9", None))
    server.ctl("remove", "g9")
    with pytest.raises(UsageError, match=r"unknown key 'vm\.preswap\.g9'"):
        change.apply()
