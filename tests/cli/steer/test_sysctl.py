# SPDX-License-Identifier: BSD-3-Clause
"""`sysctl`, `freeze`, `thaw`: named values, read and set as sysctl(8) does it."""

import json
from pathlib import Path

import nbd
import pytest

from preswapd.cli.instances import Instances
from preswapd.cli.main import preswapctl
from preswapd.cli.steer.assignments import Assignment
from preswapd.cli.steer.sysctl import Change
from preswapd.errors import UsageError
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import PRESWAPCTL, RunningServer, run

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
        "vm.remote",
        "preswap.default.pool_limit",
        "preswap.default.governed_limit",
        "preswap.default.frozen",
        "preswap.default.writeback_room",
        "preswap.default.writeback_idle",
        "preswap.default.writeback_rate",
        "preswap.default.recompress_after",
        "preswap.default.recompress_codec",
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
    # One of them may have gone since, for room within the quota.
    assert server.json_stats()["devices"]["g1"]["preswap_pages"] in (9, 10)
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
    assert stats["tmem"]["mem_limit"] == 8 * MIB
    # Room is made within a quota too, so that one of them may be on its way to disk.
    assert 1 <= stats["devices"]["g1"]["preswap_pages"] <= 10
    assert stats["sysctl"]["preswap.default.g1.quota"] == 10


POLICY = "preswap.default."
CONFIGURED = """\
[writeback]
room = "10 %"
idle = "30m"
[recompress]
after = "off"
"""
SAID = {
    "writeback_room": "10%",
    "writeback_idle": 1800,
    "writeback_rate": 64 << 20,
    "recompress_after": "off",
    "recompress_codec": "zstd",
}
OTHERS = {
    "writeback_room": ("7.5", "7.5%"),
    "writeback_idle": ("auto", "auto"),
    "writeback_rate": ("off", "off"),
    "recompress_after": ("2h", 7200),
    "recompress_codec": ("lz4", "lz4"),
}


def policy_of(server: RunningServer) -> dict[str, object]:
    shown = json.loads(server.ctl("--json", "sysctl", "-a").stdout)
    return {name: shown[f"{POLICY}{name}"] for name in SAID}


def test_policy_is_configured_set_kept_and_brought_back(
    start_server: StartServer, tmp_path: Path
) -> None:
    """By a file and an option; what sysctl shows is what it takes."""
    config = tmp_path / "vm1.toml"
    config.write_text(CONFIGURED)
    server = start_server(extra=[f"--config={config}", "--writeback-rate=64M/s"])
    assert policy_of(server) == SAID
    assert {name: server.json_stats()["sysctl"][f"{POLICY}{name}"] for name in SAID} == SAID
    for name, (text, shown) in OTHERS.items():
        key = f"{POLICY}{name}"
        assert server.ctl("sysctl", f"{key}={text}").stdout == f"{key} = {shown}\n"
        assert server.ctl("sysctl", f"{key}={shown}").stdout == f"{key} = {shown}\n"
    changed = {name: shown for name, (_, shown) in OTHERS.items()}
    for restart in (lambda: None, server.kill, server.stop):
        restart()
        if server.child is None:
            server.start()
        assert policy_of(server) == changed
    server.ctl("sysctl", *(f"{POLICY}{name}=default" for name in SAID))
    assert policy_of(server) == SAID
    server.kill()
    server.start()
    assert policy_of(server) == SAID


def test_all_that_is_printed_can_be_loaded(server: RunningServer) -> None:
    for name, (text, _) in OTHERS.items():
        server.ctl("sysctl", f"{POLICY}{name}={text}")
    printed = server.ctl("sysctl", "-a").stdout
    for name in OTHERS:
        server.ctl("sysctl", f"{POLICY}{name}=default")
    command = f"{PRESWAPCTL} --runtime-dir={server.runtime_dir} sysctl -p -"
    assert run(["sh", "-c", f"echo '{printed}' | {command}"]).stdout == printed
    assert server.ctl("sysctl", "-a").stdout == printed


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
        (["-a", "vm.preswap"], "-a shows all keys: give neither keys nor -w nor -p with it"),
        (["-a", "-p", "/dev/null"], "-a shows all keys: give neither keys nor -w nor -p with it"),
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
        (
            ["preswap.default.writeback_room=60%"],
            "preswap.default.writeback_room: 60% is out of range: from 1% to 50%, or off",
        ),
        (
            ["preswap.default.writeback_idle=1w"],
            "preswap.default.writeback_idle: '1w' is not a duration: write it like 30m, 2h or 90s,"
            " or auto, or off",
        ),
        (["preswap.default.recompress_codec=none"], "the choices are zstd, lz4, or off"),
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
    instances = Instances(runtime_dir=server.runtime_dir)
    change = Change.of(instances, Assignment("vm.preswap.g9", None))
    server.ctl("remove", "g9")
    with pytest.raises(UsageError, match=r"unknown key 'vm\.preswap\.g9'"):
        change.apply()


# --- files ---

FILE = """\
# what vm1 may take
preswap.default.frozen = 1
   ; in both manners

  preswap.default.g1.quota=8M
"""
SET = "preswap.default.frozen = 1\npreswap.default.g1.quota = 2048\n"


@pytest.mark.parametrize("options", [["-p"], ["--load"], ["-w", "-p"], ["-ep"]])
def test_file_is_read_as_sysctl_does(
    server: RunningServer, tmp_path: Path, options: list[str]
) -> None:
    path = tmp_path / "sysctl.conf"
    path.write_text(FILE, encoding="utf-8-sig")
    done = server.ctl("sysctl", *options, str(path))
    assert (done.stdout, done.stderr) == (SET, "")


def test_several_files_and_the_standard_input(server: RunningServer, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path, pages in zip(paths, (5, 6), strict=True):
        path.write_text(f"preswap.default.g1.quota = {pages}")
    done = server.ctl("sysctl", "-np", *map(str, paths))
    assert done.stdout == "5\n6\n"
    command = f"echo 'vm.preswap = 0' | {PRESWAPCTL} --runtime-dir={server.runtime_dir} sysctl -p -"
    assert run(["sh", "-c", command]).stdout == "vm.preswap = 0\n"


def test_quiet_says_nothing_of_what_it_sets(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "sysctl.conf"
    path.write_text(FILE)
    assert server.ctl("sysctl", "-q", "-p", str(path)).stdout == ""
    assert server.ctl("--json", "sysctl", "-q", "preswap.default.frozen=0").stdout == ""
    done = server.ctl("sysctl", "-q", "preswap.default.g1.quota=7", "preswap.default.frozen")
    assert done.stdout == "preswap.default.frozen = 0\n"
    assert server.json_stats()["sysctl"]["preswap.default.g1.quota"] == 7


def test_unknown_keys_are_passed_over(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "sysctl.conf"
    path.write_text(f"vm.swappiness = 10\npreswap.vm9.frozen = 1\nvm.preswap.g9 = 0\n{FILE}")
    for key in ("vm.swappiness", "preswap.vm9.frozen", "vm.preswap.g9"):
        assert server.ctl("sysctl", "-e", f"{key}=1").stdout == ""
    assert server.ctl("sysctl", "-e", "-p", str(path)).stdout == SET
    # A bad value of a known key is no unknown key.
    done = server.ctl("sysctl", "-e", "preswap.default.frozen=2", check=False)
    assert done.returncode == 2


def test_line_that_may_fail(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "sysctl.conf"
    path.write_text(f"-vm.swappiness = 10\n-preswap.default.pool_limit = 1K\n{FILE}")
    assert server.ctl("sysctl", "-p", str(path)).stdout == SET


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\nvm.swappiness = 10\n", ":2: unknown key 'vm.swappiness'"),
        ("vm.preswap = x\n", ":1: vm.preswap: 'x' is not a size"),
        ("preswap.default.frozen\n", ":1: a line is KEY = VALUE"),
        ("preswap.default.frozen =\n", ":1: a line is KEY = VALUE"),
        ("= 1\n", "KEY=VALUE"),
    ],
)
def test_mistakes_in_a_file_are_told_with_their_line(
    server: RunningServer, tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "sysctl.conf"
    path.write_text(f"{text}preswap.default.frozen = 1\n")
    done = server.ctl("sysctl", "-p", str(path), check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert complaint in done.stderr
    assert server.json_stats()["sysctl"]["preswap.default.frozen"] == 0


def test_bad_value_in_a_file_is_told_with_its_line(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "sysctl.conf"
    path.write_text("preswap.default.frozen = 1\npreswap.default.g1.quota = x\n")
    done = server.ctl("sysctl", "-p", str(path), check=False)
    assert (done.returncode, done.stdout) == (2, "preswap.default.frozen = 1\n")
    assert done.stderr.startswith(f"preswapctl: {path}:2: preswap.default.g1.quota: ")


def test_file_that_is_not_there(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "none"
    done = server.ctl("sysctl", "-p", str(path), check=False)
    assert done.returncode == 1
    assert done.stderr == f"preswapctl: {path}: No such file or directory\n"


# --- several instances ---


def test_key_that_two_instances_have(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Instance "a" has a device "b.c", and "a.b" a device "c"."""
    first = start_server(devices={"b.c": "1M"}, extra=["--instance=a"])
    second = start_server(devices={"c": "1M"}, extra=["--instance=a.b"])
    root = first.base / "root"
    root.mkdir()
    for name, server in (("a", first), ("a.b", second)):
        (root / name).symlink_to(server.runtime_dir)
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: root)
    monkeypatch.setattr("preswapd.paths.runtime_root", lambda: root)
    monkeypatch.setattr("preswapd.cli.instances.default_shm_dirs", dict)
    key = "preswap.a.b.c.quota"
    preswapctl.main(["--instance=a.b", "sysctl", f"{key}=7"], standalone_mode=False)
    assert capsys.readouterr().out == f"{key} = 7\n"
    preswapctl.main(["sysctl", "-a"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(key)] == [f"{key} = unlimited", f"{key} = 7"]
    with pytest.raises(UsageError, match=r"several instances have .* \(a, a\.b\)"):
        preswapctl.main(["sysctl", key], standalone_mode=False)
