# SPDX-License-Identifier: BSD-3-Clause
"""What doctor advises works as it is printed: each command is run, and what it mends is well then.

Of commands for root of a real host only the paths are replaced by those of a tree like its own.
"""

import errno
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from preswapd.api.client import Client
from preswapd.api.last_start import LastStart
from preswapd.cli.doctor import guests, host, starting, units
from preswapd.cli.doctor.command import check_instances, checked, is_closed
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.instances import Instances, RunningInstance, at
from preswapd.cli.typed import as_root, control, named, program, serve
from preswapd.errors import RefusedError, UnreachableError
from preswapd.host import logind
from preswapd.host.children import Child
from preswapd.paths import SYSTEM_RUNTIME_ROOT
from preswapd.server.config.merged import load
from tests.cli.doctor.test_doctor import ENABLED, ETC, LOCAL, OURS, PROFILE, laid
from tests.clients import BEHIND_ZONE, connected
from tests.running import BIN, PRESWAPCTL, RunningServer, run, wait_until

ITS = SYSTEM_RUNTIME_ROOT / "vm1"
SYSTEMCTL = re.compile(r" && systemctl [^&]*")


def typed(command: str | None) -> str:
    assert command is not None
    done = run(["sh", "-c", command])
    assert done.returncode == 0, done.stderr
    return done.stdout


def typed_at(root: Path, command: str | None) -> None:
    """On a tree instead of the host, whose systemd is not asked."""
    assert command is not None
    typed(SYSTEMCTL.sub("", command).replace("/etc/", f"{root}/etc/"))


def doctor(server: RunningServer) -> list[dict[str, Any]]:
    done = server.ctl("--json", "doctor", check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
    return found


def with_text(found: list[dict[str, Any]], text: str) -> dict[str, Any]:
    (check,) = (check for check in found if text in check["text"])
    return check


# --- a server that does not run ---


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host's configuration would be."""
    root = tmp_path / "etc/preswapd"
    root.mkdir(parents=True)
    monkeypatch.setattr(starting, "CONFIG_ROOT", root)
    monkeypatch.setattr("preswapd.paths.CONFIG_ROOT", root)
    return root


def test_unit_of_what_is_configured(tmp_path: Path, configs: Path) -> None:
    (configs / "vm1.toml").touch()
    (configs / "vm2.toml.d").mkdir()
    root = laid(tmp_path, OURS)
    for name in ("vm1", "vm2"):
        command = starting.start(SYSTEM_RUNTIME_ROOT / name, root)
        assert command == f"systemctl start preswapd@{name}.service"
    # The units start only servers in the system's runtime directory.
    assert starting.start(Path("/run/user/7/preswapd/vm1"), root).startswith(program("preswapd"))


def test_nothing_is_written_over_what_cannot_be_seen(
    tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a user whom the system's folders do not let in: it may be there, and run."""

    def refuse(path: Path) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("preswapd.host.filesystems.mode_of", refuse)
    command = starting.start(SYSTEM_RUNTIME_ROOT / "vm1", laid(tmp_path, OURS))
    assert command == "systemctl start preswapd@vm1.service"
    assert is_closed(configs / "control.sock")


def test_configuration_comes_before_its_unit(tmp_path: Path, configs: Path) -> None:
    command = starting.start(ITS, laid(tmp_path, OURS))
    assert command.endswith(" && systemctl enable --now preswapd@vm1.service")
    typed(SYSTEMCTL.sub("", command))
    (spec,) = load(config=configs / "vm1.toml").settings.devices
    assert (spec.name, spec.size) == ("swap0", 8 << 30)


@pytest.mark.parametrize("place", ["default", "vm1", "elsewhere"])
def test_new_server(tmp_path: Path, configs: Path, place: str) -> None:
    """Checked up to the configuration: a pool of this size is not for a test."""
    runtime_dir = tmp_path / "vm 1" if place == "elsewhere" else SYSTEM_RUNTIME_ROOT / place
    command = starting.start(runtime_dir, tmp_path)
    shown = typed(f"{command} --show-config")
    assert f'runtime-dir = "{runtime_dir}"' in shown
    assert '[device."swap0"]' in shown
    (configs / f"{place}.toml").write_text('pool-size = "4M"')
    if place == "vm1":
        assert starting.start(runtime_dir, tmp_path) == serve(runtime_dir)


def test_pool_of_a_new_server_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    for total, size in ((0, "2G"), (64 << 30, "2G"), (3 << 30, "1536M"), ((64 << 20) - 1, "31M")):
        monkeypatch.setattr(starting, "total_bytes", lambda _, found=total: found)
        assert starting.pool_size() == size


def test_instance_that_is_configured_and_does_not_run(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (configs / "vm7.toml").touch()
    (configs / "notes.txt").touch()
    # It is no instance.
    (configs / "governor.toml").touch()
    (configs / "governor.toml.d").mkdir()
    monkeypatch.setattr("preswapd.cli.instances.runtime_root", lambda: tmp_path)
    monkeypatch.setattr("preswapd.cli.instances.default_shm_dirs", dict)
    monkeypatch.setattr("preswapd.cli.doctor.command.is_root", lambda: True)
    (found,) = check_instances(Instances())
    assert (found.status, found.subject) == (NOTE, "instance vm7")
    (configs / "vm7.toml").unlink()
    (found,) = check_instances(Instances())
    assert (found.status, found.subject) == (NOTE, "server")
    assert found.command is not None


def test_name_that_nobody_has(tmp_path: Path, configs: Path) -> None:
    done = run([PRESWAPCTL, "--instance", "nosuch", "--json", "doctor"])
    check = json.loads(done.stdout)["checks"][-1]
    assert (check["status"], check["subject"]) == (FIX, "instance nosuch")
    assert check["mend"].startswith("no instance has that name; to make it: ")
    typed(f"{check['command']} --show-config")


def test_server_of_another_user(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.kill()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (found,), _ = checked(at(server.runtime_dir))
    assert found.command == f"sudo {control(server.runtime_dir, 'doctor')}"


def test_killed_server_is_started_as_it_was(server: RunningServer) -> None:
    """Its options are nowhere but in what was typed."""
    server.extra.append("--compress=zstd")
    server.restart()
    server.kill()
    check = with_text(doctor(server), "no preswapd server answers")
    server.launch(["sh", "-c", f"exec {check['command']}"])
    assert server.json_stats()["devices"]["g1"]["compress"] == "lz4"
    server.ctl("create", "g2", "1M")
    assert server.json_stats()["devices"]["g2"]["compress"] == "zstd"


def test_what_was_typed_in_another_directory_and_by_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = LastStart(("/x/preswapd", "serve", "--config", "a b.toml"), "/srv/a b", "", "/s")
    assert (
        starting.again(last, tmp_path) == "(cd '/srv/a b' && /x/preswapd serve --config 'a b.toml')"
    )
    here = last._replace(directory=os.getcwd(), command=("preswapd", "serve"))
    assert starting.again(here, tmp_path) == "preswapd serve"
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    owner = starting.name_of(tmp_path.stat().st_uid)
    assert starting.again(here, tmp_path) == f"runuser -u {owner} -- preswapd serve"


def test_unit_that_ran_it_last(tmp_path: Path) -> None:
    runtime_dir = tmp_path / "vm1"
    runtime_dir.mkdir()
    last = LastStart(("preswapd", "serve"), os.getcwd(), "preswapd@x.service", "/s")
    last.write(runtime_dir / "start.json")
    assert starting.start(runtime_dir, tmp_path) == "preswapd serve"
    assert starting.start(runtime_dir, laid(tmp_path, OURS)) == "systemctl start preswapd@x.service"


# --- a server that hangs ---


def test_stopped_server_goes_on(server: RunningServer) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    (found,) = hung(server)
    assert f"process {server.pid} is stopped" in str(found.mend)
    typed(found.command)
    assert server.json_stats()["instance"] == "default"


def hung(server: RunningServer) -> list[Finding]:
    """What is said of it; the client is not as patient as it would be."""
    client = type(at(server.runtime_dir).client)(server.control_socket, patience=0.2)
    findings, answers = checked(RunningInstance("default", server.runtime_dir, client))
    assert not answers
    return findings


def test_server_that_hangs_is_waited_for_once(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question takes as long as the operator's patience, of which nobody has three."""
    asked: list[str] = []

    def no_answer(self: Client, method: str, path: str, body: object, timeout: float) -> None:
        asked.append(path)
        raise UnreachableError("it does not answer")

    instances = Instances(server.runtime_dir, None)
    running = instances.running()
    monkeypatch.setattr(Instances, "running", lambda self: running)
    monkeypatch.setattr(Client, "_json", no_answer)
    assert [found.status for found in check_instances(instances)] == [FIX]
    assert len(asked) == 1


def test_young_server_is_waited_for(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "is_stopped", lambda pid: False)
    os.kill(server.pid, signal.SIGSTOP)
    (found,) = hung(server)
    os.kill(server.pid, signal.SIGCONT)
    assert "may still read in its pages: wait" in str(found.mend)
    assert found.command is None


def test_server_that_hangs_is_started_anew(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected(server, "g1").pwrite(b"preswapd" * 512, BEHIND_ZONE)
    monkeypatch.setattr(starting, "is_stopped", lambda pid: False)
    monkeypatch.setattr(starting, "LONGEST_START", 0.0)
    before = server.pid
    os.kill(before, signal.SIGSTOP)
    (found,) = hung(server)
    assert found.mend == f"process {before} hangs; a kill and a start lose no page"
    child = Child(["sh", "-c", str(found.command)], server.log_file)
    try:
        # A process that its parent has not asked for its end is still there.
        assert server.wait() == -signal.SIGKILL
        wait_until(lambda: server.log.count("ready: ") == 2, "the next server")
        assert server.json_stats()["devices"]["g1"]["preswap_pages"] == 1
    finally:
        pid = server.ctl("--json", "stats", check=False)
        os.kill(json.loads(pid.stdout)["server"]["pid"], signal.SIGKILL)
        child.wait()


def test_unit_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart would wait for it for ever: the unit has no time limits."""
    runtime_dir = tmp_path / "vm1"
    runtime_dir.mkdir()
    last = LastStart(("preswapd", "serve"), "/", "preswapd@vm1.service", "/s")
    last.write(runtime_dir / "start.json")
    monkeypatch.setattr(starting, "holder", lambda path: 7)
    monkeypatch.setattr(starting, "is_stopped", lambda pid: False)
    monkeypatch.setattr(starting, "age", lambda pid: 900.0)
    monkeypatch.setattr(starting, "unit_of", lambda path: "preswapd@vm1.service")
    _, command = starting.revive(runtime_dir)
    unit = "preswapd@vm1.service"
    assert command == f"systemctl kill --signal=KILL {unit} && systemctl restart {unit}"
    # What it said of itself is not believed where its process is in another unit.
    monkeypatch.setattr(starting, "unit_of", lambda path: "ssh.service")
    assert str(starting.revive(runtime_dir)[1]).startswith("kill -KILL 7 && ")


# --- a running instance ---


def test_frozen_pool_is_thawed(server: RunningServer) -> None:
    server.ctl("freeze")
    typed(with_text(doctor(server), "the pool is frozen")["command"])
    assert server.json_stats()["tmem"]["frozen"] is False


def test_limit_of_a_governor_that_is_gone_is_lifted(server: RunningServer) -> None:
    server.ctl("sysctl", "preswap.default.governed_limit=8M")
    check = with_text(doctor(server), "a governor that does not run any more")
    assert check["status"] == NOTE
    typed(check["command"])
    stats = server.json_stats()["tmem"]
    assert (stats["governed"], stats["mem_limit"]) == (False, 32 << 20)


def test_quota_is_lifted(server: RunningServer) -> None:
    connected(server, "g1").pwrite(b"preswapd" * 512 * 93, BEHIND_ZONE)
    server.ctl("sysctl", "preswap.default.g1.quota=200")
    assert with_text(doctor(server), "93 pages of its quota of 200 pages (800K)")["status"] == OK
    server.ctl("sysctl", "preswap.default.g1.quota=100")
    check = with_text(doctor(server), "93 pages of its quota of 100 pages (400K)")
    assert check["status"] == NOTE
    typed(check["command"])
    assert not [check for check in doctor(server) if " quota of " in check["text"]]


def test_commands_name_the_instance(server: RunningServer) -> None:
    for path in (server.paths.map("g1"), server.paths.arena):
        path.unlink()
    ctl = f"{program('preswapctl')} --runtime-dir {server.runtime_dir}"
    found = doctor(server)
    check = with_text(found, f"{server.paths.map('g1')} is missing")
    assert check["command"] == f"{ctl} remove g1"
    assert with_text(found, f"{server.paths.arena} is missing")["command"] is None


# --- the host ---


@pytest.mark.parametrize(
    "files",
    [
        {
            f"{ETC}/preswapd@.service": "[Service]\nExecStart=x\n",
            f"{ETC}/preswapd@.socket": "",
            f"{ETC}/preswapd-sync@.service": "",
        },
        {**OURS, f"{ETC}/preswapd@vm1.service.d/a.conf": "[Service]\nRestartSec=5"},
        {**OURS, f"{ETC}/preswapd@vm1.service.d/zzz.conf": "[Service]\nRestart=no"},
        {**OURS, f"{ETC}/preswapd@vm1.service.d/zz-preswapd.conf": "[Service]\nTimeoutStopSec=1"},
        {**OURS, f"{ETC}/preswapd@.service.d/zzz.conf": "[Service]\nDynamicUser=yes"},
    ],
)
def test_drop_ins_put_units_right(tmp_path: Path, files: dict[str, str]) -> None:
    root = laid(tmp_path, files)
    wrong = [found for found in units.check_units(root) if found.status == FIX]
    assert wrong
    for found in wrong:
        assert str(found.command).endswith(" && systemctl daemon-reload")
        typed_at(root, found.command)
    assert {found.status for found in units.check_units(root)} == {OK}
    for name, text in files.items():
        assert (root / name).read_text().startswith(text)


def test_directory_that_only_the_server_may_write_to(tmp_path: Path) -> None:
    """A file is an image's, which the sync does not write to."""
    for folder in ("srv/swap", "srv/both"):
        (tmp_path / folder).mkdir(parents=True)
    server, sync = f"{ETC}/preswapd@vm1.service.d", f"{ETC}/preswapd-sync@vm1.service.d"
    files = {
        **OURS,
        "srv/vm1.raw": "",
        f"{server}/a.conf": "[Service]\nReadWritePaths=/srv/gone /srv/both\nReadWritePaths=\n",
        f"{server}/b.conf": '[Service]\nReadWritePaths=-/srv/both "/srv/swap"\n',
        f"{server}/c.conf": "[Service]\nReadWritePaths=/srv/vm1.raw\n",
        f"{sync}/a.conf": "[Service]\nReadWritePaths=/srv/both\n",
    }
    root = laid(tmp_path, files)
    *_, found = units.check_units(root)
    assert (found.status, found.subject) == (NOTE, "preswapd-sync@vm1.service")
    assert "it may not write to /srv/swap, as preswapd@vm1.service may" in found.text
    typed_at(root, found.command)
    assert {found.status for found in units.check_units(root)} == {OK}


@pytest.mark.parametrize("before", [None, "", "# mine", "/x rw,\n"])
def test_apparmors_line_comes_in(tmp_path: Path, before: str | None) -> None:
    root = laid(tmp_path, {**ENABLED, **PROFILE})
    if before is not None:
        laid(root, {LOCAL: before})
    (found,) = guests.check_apparmor(root, Path("/run/preswapd"))
    typed_at(root, found.command)
    (found,) = guests.check_apparmor(root, Path("/run/preswapd"))
    assert found.status == OK
    assert (root / LOCAL).read_text().startswith(f"{before or ''}\n")


@pytest.mark.parametrize("prefix", ["usr/local", "usr"])
def test_libvirts_hook_comes_in(tmp_path: Path, prefix: str) -> None:
    hook = (Path(__file__).parents[3] / "contrib/libvirt/hook.py").read_text()
    root = laid(tmp_path, {f"{prefix}/share/doc/preswapd/libvirt-hook": hook})
    (found,) = guests.check_hook(root)
    assert found.status == NOTE
    assert found.command is not None
    typed_at(root, found.command.replace(f"/{prefix}/", f"{root}/{prefix}/"))
    (found,) = guests.check_hook(root)
    assert found.status == OK
    assert os.access(root / "etc/libvirt/hooks/qemu.d/preswapd", os.X_OK)


def test_somebody_elses_hook_is_none_of_ours(tmp_path: Path) -> None:
    (found,) = guests.check_hook(laid(tmp_path, {"etc/libvirt/hooks/qemu": "#!/bin/sh\n"}))
    assert (found.status, found.command) == (NOTE, None)


def test_logind_keeps_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "etc/systemd/logind.conf.d"
    monkeypatch.setattr(logind, "FILES", ())
    monkeypatch.setattr(logind, "DROP_INS", (str(folder),))
    laid(folder, {"vendor.conf": "[Login]\nRemoveIPC=yes\n"})
    assert logind.removes_ipc()
    typed_at(tmp_path, host.KEEP_IPC)
    assert not logind.removes_ipc()


def test_nbdkit_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names that the distribution has for it."""

    def missing() -> None:
        raise RefusedError("nbdkit is not installed: install nbdkit and its Python plugin")

    monkeypatch.setattr(host, "probe", missing)
    monkeypatch.setattr(shutil, "which", lambda name: name == "apt-get" and "/usr/bin/apt-get")
    (found,) = host.check_nbdkit()
    names = re.findall(r"nbdkit[\w-]*", str(found.command))
    checkout = Path(__file__).parents[3]
    packages = (checkout / "tools/system-packages").read_text()
    assert names == list(re.findall(r"^(nbdkit[\w-]*) ", packages, re.M))
    assert host.installing("nbdkit 1.2 is too old") == ()


# --- how commands are written ---


def test_commands_can_be_typed_where_path_does_not_lead_to_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert program("preswapctl") == str(BIN / "preswapctl")
    (tmp_path / "preswapctl").symlink_to(BIN / "preswapctl")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert program("preswapctl") == "preswapctl"
    (tmp_path / "preswapctl").unlink()
    (tmp_path / "preswapctl").write_text("#!/bin/sh\n")
    (tmp_path / "preswapctl").chmod(0o755)
    assert program("preswapctl") == str(BIN / "preswapctl")


def test_instance_by_its_name_or_its_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preswapd.paths.is_root", lambda: True)
    assert named(SYSTEM_RUNTIME_ROOT / "vm1") == "--instance vm1"
    assert named(Path("/run/other/vm1")) == "--runtime-dir /run/other/vm1"
    assert named(Path("/run/a b")) == "--runtime-dir '/run/a b'"


def test_users_ask_for_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preswapd.cli.typed.is_root", lambda: False)
    command = as_root("printf 'a b' && true")
    assert command.startswith("sudo sh -c ")
    assert run(["sh", "-c", command.removeprefix("sudo ")]).stdout == "a b"
    monkeypatch.setattr("preswapd.cli.typed.is_root", lambda: True)
    assert as_root("true") == "true"
