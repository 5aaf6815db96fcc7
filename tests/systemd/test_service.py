# SPDX-License-Identifier: BSD-3-Clause
"""preswapd@.service under a real systemd: started, killed, restarted, misconfigured, stopped."""

import json
import random
import shutil
import stat
import tomllib
from collections.abc import Iterator
from typing import Any

import nbd
import pytest

from preswapd.log import ERROR, INFO
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE
from tests.remote.stores import needs_store, server_program
from tests.running import wait_for
from tests.systemd.booted import CHECKOUT, Booted, NotPossibleError

NOISE = random.Random(7).randbytes(64 * PAGE)
UNITS = CHECKOUT / "systemd"
CONFIG = 'pool-size = "16M"\n[device.swap0]\nsize = "64M"\n'


# One systemd for all of them.
pytestmark = pytest.mark.xdist_group("systemd")


@pytest.fixture(scope="module")
def host() -> Iterator[Booted]:
    """Set up as systemd/README.md says."""
    try:
        with Booted() as booted:
            install_units(booted)
            yield booted
    except NotPossibleError as error:
        pytest.skip(str(error))


def install_units(booted: Booted) -> None:
    for folder, to in (("", "system"), ("sysusers.d", ""), ("tmpfiles.d", "")):
        target = booted.path(f"/etc/systemd/{to}" if to else f"/etc/{folder}")
        target.mkdir(exist_ok=True)
        for pattern in ("preswapd@.*", "preswapd-*.*", "preswapd.conf"):
            for file in (UNITS / folder).glob(pattern):
                shutil.copy(file, target)
    booted.run("systemd-sysusers")
    booted.run("systemd-tmpfiles", "--create", "preswapd.conf")
    booted.run("systemctl", "daemon-reload")


@pytest.fixture
def vm(host: Booted, request: pytest.FixtureRequest) -> Iterator[str]:
    """An instance of its own for each test, enabled and running."""
    name = request.node.name.replace("_", "-")[:40]
    host.path(f"/etc/preswapd/{name}.toml").write_text(CONFIG)
    host.run("systemctl", "enable", "--now", f"preswapd@{name}")
    yield name
    host.run("systemctl", "disable", "--now", f"preswapd@{name}.socket", f"preswapd@{name}")


def client(host: Booted, vm: str) -> Any:
    connection = nbd.NBD()
    # The path from outside is longer than a socket's name may be: it is opened, and named by that.
    folder = host.path(f"/run/preswapd/{vm}")
    short = host.root.with_suffix(".run")
    short.symlink_to(folder)
    try:
        connection.connect_unix(str(short / "nbd.sock"))
    finally:
        short.unlink()
    return connection


def server_pid(host: Booted, vm: str) -> int:
    return int(host.show(f"preswapd@{vm}", "MainPID"))


def test_pages_outlive_kills_and_restarts(host: Booted, vm: str) -> None:
    client(host, vm).pwrite(NOISE, BEHIND_ZONE)
    before = server_pid(host, vm)
    host.run("systemctl", "kill", "--signal=KILL", f"preswapd@{vm}")
    # The socket is open all the time: this waits for the next server, and is not refused.
    assert bytes(client(host, vm).pread(len(NOISE), BEHIND_ZONE)) == NOISE
    killed = server_pid(host, vm)
    assert killed not in {0, before}
    host.run("systemctl", "restart", f"preswapd@{vm}")
    assert server_pid(host, vm) not in {0, killed}
    assert bytes(client(host, vm).pread(len(NOISE), BEHIND_ZONE)) == NOISE
    lines = host.journal(f"preswapd@{vm}")
    assert sum(line.startswith("recovered 64 pages") for line in lines) == 2
    assert sum(line.startswith("stopping on SIGTERM") for line in lines) == 1


def test_stopped_server_starts_when_its_guest_asks(host: Booted, vm: str) -> None:
    client(host, vm).pwrite(NOISE, BEHIND_ZONE)
    host.run("systemctl", "stop", f"preswapd@{vm}")
    assert host.show(f"preswapd@{vm}", "Result") == "success"
    assert bytes(client(host, vm).pread(len(NOISE), BEHIND_ZONE)) == NOISE


def test_who_may_do_what(host: Booted, vm: str) -> None:
    pid = server_pid(host, vm)
    status = dict(
        line.split(":", 1) for line in host.path(f"/proc/{pid}/status").read_text().splitlines()
    )
    assert status["CapEff"].strip() == status["CapBnd"].strip() == "0" * 16
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    user = int(host.run("id", "--user", "preswapd"))
    socket = host.path(f"/run/preswapd/{vm}/nbd.sock").stat()
    assert (socket.st_uid, stat.S_IMODE(socket.st_mode)) == (user, 0o660)
    folders = {f"/run/preswapd/{vm}": 0o750, f"/var/lib/preswapd/{vm}": 0o700}
    for path, mode in {**folders, f"/dev/shm/preswapd-{vm}": 0o700}.items():
        found = host.path(path).stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (user, mode), path
    # Whether it takes effect is up to a capability that a container lacks.
    assert host.show(f"preswapd@{vm}", "OOMScoreAdjust") == "-900"


def test_operator_reaches_it(host: Booted, vm: str) -> None:
    ctl = ("/opt/preswapd/bin/preswapctl", f"--runtime-dir=/run/preswapd/{vm}")
    host.run(*ctl, "create", "swap1", "1M")
    assert "swap1" in host.run(*ctl, "list")
    host.run(*ctl, "shrink", "0")


def test_doctor_names_the_unit_of_one_that_was_stopped(host: Booted, vm: str) -> None:
    """Its guest's pages are in memory, and nobody listens."""
    client(host, vm).pwrite(NOISE, BEHIND_ZONE)
    host.run("systemctl", "stop", f"preswapd@{vm}.socket", f"preswapd@{vm}")
    doctor = ("/opt/preswapd/bin/preswapctl", "--json", "doctor")
    found = json.loads(host.run(*doctor, check=False))["checks"]
    (check,) = (check for check in found if check["subject"] == f"instance {vm}")
    assert (
        f"does not run, and 64 pages (256K) of its guests lie in /dev/shm/preswapd-{vm}"
        in (check["text"])
    )
    assert check["command"] == f"systemctl start preswapd@{vm}.service"
    host.run("sh", "-c", check["command"])
    assert bytes(client(host, vm).pread(len(NOISE), BEHIND_ZONE)) == NOISE


def test_doctor_has_a_unit_that_hangs_started_anew(host: Booted, vm: str) -> None:
    """What it prints after a minute, for a process that is only stopped."""
    client(host, vm).pwrite(NOISE, BEHIND_ZONE)
    unit, before = f"preswapd@{vm}", server_pid(host, vm)
    host.run("systemctl", "kill", "--signal=STOP", unit)
    name = f"{unit}.service"
    host.run("sh", "-c", f"systemctl kill --signal=KILL {name} && systemctl restart {name}")
    assert server_pid(host, vm) not in {0, before}
    assert bytes(client(host, vm).pread(len(NOISE), BEHIND_ZONE)) == NOISE


def test_figures_for_prometheus(host: Booted, vm: str) -> None:
    folder = "/var/lib/prometheus/node-exporter"
    host.run("mkdir", "--parents", folder)
    host.run("chown", "nobody", folder)
    unit = "preswapd-metrics"
    host.run("systemctl", "start", f"{unit}.service")
    text = host.path(f"{folder}/preswapd.prom").read_text()
    assert f'preswapd_device_size_bytes{{instance="{vm}",device="swap0"}} 67108864' in text
    host.run("systemctl", "start", f"{unit}.timer")
    assert host.show(f"{unit}.timer", "ActiveState") == "active"
    assert host.show(f"{unit}.timer", "NextElapseUSecRealtime")
    host.run("systemctl", "stop", f"{unit}.timer")
    host.run("systemctl", "kill", "--signal=STOP", f"preswapd@{vm}")
    host.run("systemctl", "start", f"{unit}.service")
    assert host.show(f"{unit}.service", "Result") == "success"
    host.run("systemctl", "kill", "--signal=CONT", f"preswapd@{vm}")
    assert vm not in host.path(f"{folder}/preswapd.prom").read_text()


def test_bad_configuration_ends_the_attempts_and_a_guest_begins_them_anew(
    host: Booted, vm: str
) -> None:
    unit = f"preswapd@{vm}"
    config = host.path(f"/etc/preswapd/{vm}.toml")
    config.write_text(f"nonsense = 1\n{CONFIG}")
    host.run("systemctl", "restart", unit, check=False)
    host.wait_for(unit, "ActiveState", "failed")
    assert host.show(unit, "ExecMainStatus") == "2"
    told = [json.loads(line) for line in host.journal(unit, "--output=json")]
    (complaint,) = (line for line in told if "unknown key" in line["MESSAGE"])
    assert f"{vm}.toml:1: unknown key 'nonsense'" in complaint["MESSAGE"]
    assert complaint["PRIORITY"] == str(ERROR)
    ready = next(line for line in told if line["MESSAGE"].startswith("ready"))
    assert ready["PRIORITY"] == str(INFO)
    config.write_text(CONFIG)
    assert client(host, vm).get_size() == 64 << 20


def test_file_that_cannot_be_read_is_tried_until_it_can(host: Booted, vm: str) -> None:
    """As one that was written under umask 077."""
    unit = f"preswapd@{vm}"
    config = host.path(f"/etc/preswapd/{vm}.toml")
    config.chmod(0o600)
    host.run("systemctl", "restart", "--no-block", unit)
    host.wait_for(unit, "ExecMainStatus", "4")
    config.chmod(0o644)
    host.wait_for(unit, "ActiveState", "active")
    assert client(host, vm).get_size() == 64 << 20
    assert any(f"{vm}.toml: Permission denied: let user" in line for line in host.journal(unit))


def test_program_that_cannot_start_is_no_fast_loop(host: Booted, vm: str) -> None:
    """As a new version that lacks a module; it serves as soon as it can."""
    unit = f"preswapd@{vm}"
    drop_in = host.path(f"/etc/systemd/system/{unit}.service.d/broken.conf")
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 1'\n")
    host.run("systemctl", "daemon-reload")
    # A restart tells it.
    with pytest.raises(AssertionError, match="exited 1"):
        host.run("systemctl", "restart", unit)
    assert host.show(unit, "ExecMainStatus") == "1"
    host.wait_for(unit, "SubState", "stop-post")
    drop_in.unlink()
    host.run("systemctl", "daemon-reload")
    host.wait_for(unit, "ActiveState", "active")
    assert client(host, vm).get_size() == 64 << 20


def test_removed_socket_is_there_again_after_a_restart(host: Booted, vm: str) -> None:
    """systemd passes one that nobody finds any more, and is given the path back later."""
    client(host, vm).pwrite(NOISE, BEHIND_ZONE)
    path = host.path(f"/run/preswapd/{vm}/nbd.sock")
    before = path.stat()
    path.unlink()
    host.run("systemctl", "restart", f"preswapd@{vm}")
    assert bytes(client(host, vm).pread(len(NOISE), BEHIND_ZONE)) == NOISE
    now = path.stat()
    assert (now.st_uid, now.st_gid, now.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    host.run("systemctl", "restart", f"preswapd@{vm}.socket")
    host.run("systemctl", "kill", "--signal=KILL", f"preswapd@{vm}")
    assert bytes(client(host, vm).pread(len(NOISE), BEHIND_ZONE)) == NOISE


def test_what_is_shown_is_in_force(host: Booted, vm: str) -> None:
    """Also a directory in the file, once the unit's sandbox lets it be written."""
    unit, other, before = f"preswapd@{vm}", f"/var/lib/other-{vm}", f"/var/lib/preswapd/{vm}"
    client(host, vm).pwrite(NOISE, BEHIND_ZONE)
    host.path(f"/etc/preswapd/{vm}.toml").write_text(f'state-dir = "{other}"\n{CONFIG}')

    def told(text: str) -> None:
        wait_for(lambda: "\n".join(host.journal(unit)), lambda lines: text in lines)

    host.run("install", "-d", "-o", "preswapd", "-g", "preswapd", "-m", "700", other)
    host.run("systemctl", "restart", "--no-block", unit)
    told(f"add ReadWritePaths={other} to [Service]")
    drop_in = host.path(f"/etc/systemd/system/{unit}.service.d/other.conf")
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Service]\nReadWritePaths={other}\n")
    host.run("systemctl", "daemon-reload")
    told(f"belong to the disk files in {before}")
    host.run("systemctl", "stop", f"{unit}.socket", unit)
    host.run("sh", "-c", f"mv {before}/* {other}/")
    host.run("systemctl", "start", unit)
    assert bytes(client(host, vm).pread(len(NOISE), BEHIND_ZONE)) == NOISE
    program = "/opt/preswapd/bin/preswapd"
    shown = tomllib.loads(host.run(program, "serve", "--instance", vm, "--show-config"))
    ctl = ("/opt/preswapd/bin/preswapctl", f"--runtime-dir=/run/preswapd/{vm}", "--json", "stats")
    facts = json.loads(host.run(*ctl))["server"]
    for name in ("runtime-dir", "shm-dir", "state-dir"):
        assert shown[name] == facts[name.replace("-", "_")]
    assert shown["state-dir"] == other


def test_refused_start_is_tried_until_it_works(host: Booted, vm: str) -> None:
    """Somebody else has its directory at first."""
    unit = f"preswapd@{vm}"
    host.run("systemctl", "stop", f"{unit}.socket", unit)
    folder = host.path(f"/dev/shm/preswapd-{vm}")
    aside = folder.with_name(f"aside-{vm}")
    folder.rename(aside)
    folder.write_text("no directory")
    host.run("systemctl", "start", "--no-block", unit)
    host.wait_for(unit, "ExecMainStatus", "4")
    # ExecStopPost= keeps the attempts apart: it is seen while it does.
    host.wait_for(unit, "SubState", "stop-post")
    folder.unlink()
    aside.rename(folder)
    host.wait_for(unit, "ActiveState", "active")


def test_crashes_in_a_row_are_no_end(host: Booted, vm: str) -> None:
    """More than systemd takes by default."""
    unit = f"preswapd@{vm}"
    pids = {server_pid(host, vm)}
    for _ in range(6):
        host.run("systemctl", "kill", "--signal=ABRT", unit)
        assert client(host, vm).get_size() == 64 << 20
        pids.add(server_pid(host, vm))
    assert len(pids) == 7


def governed_limit(host: Booted, vm: str) -> str:
    key = f"preswap.{vm}.governed_limit"
    words = ("/opt/preswapd/bin/preswapctl", "--instance", vm, "sysctl", "-n", key)
    return host.run(*words).strip()


def test_governor_as_a_service(host: Booted, vm: str) -> None:
    """Confined as its unit confines it, it finds the instances, and is found by preswapctl."""
    unit = "preswapd-governor"
    path = host.path("/etc/preswapd/governor.toml")
    path.write_text(f'reserve = "64M"\n[instance.{vm}]\ncap = "8M"\n')
    host.run("systemctl", "enable", "--now", unit)
    try:
        assert wait_for(lambda: governed_limit(host, vm), lambda limit: limit != "off") == str(
            8 << 20
        )
        ctl = "/opt/preswapd/bin/preswapctl"
        shown = json.loads(host.run(ctl, "--json", "governor"))
        assert (shown["reserve"], shown["instances"][vm]["cap"]) == (64 << 20, 8 << 20)
        # Its status is 3 where another test has left pages of an instance that does not run.
        metrics = host.run(ctl, "metrics", check=False)
        assert f'preswapd_governor_instance_limit_bytes{{instance="{vm}"}}' in metrics
        again = host.run("/opt/preswapd/bin/preswapd", "govern", "--release", check=False)
        assert (again, governed_limit(host, vm)) == ("", str(8 << 20))
        # A restart, and the server's, change nothing.
        host.run("systemctl", "restart", unit, f"preswapd@{vm}")
        assert governed_limit(host, vm) == str(8 << 20)
        # A mistake ends it, and what was set stays.
        path.write_text("reserve = 1\n")
        host.run("systemctl", "restart", unit, check=False)
        host.wait_for(unit, "Result", "exit-code")
        assert any("governor.toml:1: reserve" in line for line in host.journal(unit))
        assert governed_limit(host, vm) == str(8 << 20)
        host.run("systemctl", "stop", unit)
        host.run("/opt/preswapd/bin/preswapd", "govern", "--release")
        assert governed_limit(host, vm) == "off"
    finally:
        path.unlink()
        host.run("systemctl", "disable", "--now", unit)


def status_of_store(host: Booted, vm: str) -> dict[str, Any]:
    socket, url = f"/run/preswapd/{vm}/control.sock", "http://localhost/v1/remote"
    found: dict[str, Any] = json.loads(host.run("curl", "-s", "--unix-socket", socket, url))
    return found


def found_store(host: Booted, vm: str) -> dict[str, Any]:
    """The server's status once it has."""
    return wait_for(
        lambda: status_of_store(host, vm), lambda said: (said["store"] or {}).get("state") == "ok"
    )


def start_store(host: Booted, address: str, *enter: str) -> None:
    """As the unit `store`; `enter`: the network that it is in."""
    options = f"--port 6379 --bind {address} --save '' --protected-mode no"
    store = f"exec -a redis-server {server_program()} {options}"
    host.run("systemd-run", "--unit=store", *enter, "bash", "-c", store)


@needs_store
def test_remote_tier(host: Booted, vm: str) -> None:
    """Its courier runs in the unit, within what that allows, and ends with it."""
    host.run("ip", "link", "set", "lo", "up")
    start_store(host, "127.0.0.1")
    host.path(f"/etc/preswapd/{vm}.toml").write_text(
        f'{CONFIG}[remote]\nurl = "redis://127.0.0.1"\ntimeout = "1s"\n'
    )
    host.run("systemctl", "restart", f"preswapd@{vm}")
    found = found_store(host, vm)
    group = host.path(f"/proc/{found['courier']}/cgroup").read_text()
    assert group == host.path(f"/proc/{server_pid(host, vm)}/cgroup").read_text()
    client(host, vm).pwrite(NOISE, BEHIND_ZONE)
    ctl = ("/opt/preswapd/bin/preswapctl", "--instance", vm, "--json")
    host.run(*ctl, "shrink", "0")
    assert bytes(client(host, vm).pread(len(NOISE), BEHIND_ZONE)) == NOISE
    assert json.loads(host.run(*ctl, "stats"))["remote"]["remote_reads"] == 64
    host.run("systemctl", "stop", f"preswapd@{vm}.socket", f"preswapd@{vm}")
    assert not host.path(f"/proc/{found['courier']}").exists()
    host.run("systemctl", "stop", "store")
