# SPDX-License-Identifier: BSD-3-Clause
"""doctor: what it sees on this host and in a running server."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import nbd
import pytest
from click.testing import CliRunner

from preswapd.api.client import Client
from preswapd.api.figures import DeviceFigures
from preswapd.cli.doctor import guests as guest_checks
from preswapd.cli.doctor import host as host_checks
from preswapd.cli.doctor import readable
from preswapd.cli.doctor import units as unit_checks
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.doctor.instances import (
    MANY_MOVED,
    PAGES_WITHOUT_TRIM,
    Place,
    check_descriptors,
    check_device,
)
from preswapd.cli.main import preswapctl
from preswapd.errors import UnreachableError
from preswapd.host import logind
from preswapd.host import versions as installed
from preswapd.paths import SYSTEM_RUNTIME_ROOT
from tests.clients import BEHIND_ZONE, connected
from tests.running import PRESWAPCTL, RunningServer, run

HERE = Place("vm1", SYSTEM_RUNTIME_ROOT / "vm1")
DEVICE = {
    "size": 1 << 30,
    "preswap_pages": 0,
    "succ_stores": 0,
    "failed_stores": 0,
    "trims": 0,
    "disk_errors": 0,
    "connections": 1,
}


def found_in(device: Mapping[str, float]) -> list[Finding]:
    figures = cast(DeviceFigures, {**DEVICE, **device})
    return list(check_device(HERE, "g1", figures))


def statuses(device: Mapping[str, float]) -> list[str]:
    return [finding.status for finding in found_in(device)]


def checks(*arguments: str) -> list[dict[str, Any]]:
    done = run([PRESWAPCTL, *arguments, "--json", "doctor"])
    found: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
    assert done.returncode == int(any(check["status"] == FIX for check in found))
    return found


def test_works_without_a_server(tmp_path: Path) -> None:
    found = checks(f"--runtime-dir={tmp_path}")
    assert found[0]["subject"] == "nbdkit"
    assert found[-1]["status"] == FIX
    assert "no preswapd server answers" in found[-1]["text"]


def test_running_instance_is_well(module_server: RunningServer) -> None:
    found = checks(f"--runtime-dir={module_server.runtime_dir}")
    assert not [check for check in found if check["status"] == FIX]
    assert any(
        "worker thread" in check["text"] for check in found if "instance" in check["subject"]
    )


def test_text_has_a_line_for_each_check(module_server: RunningServer) -> None:
    text = module_server.ctl("doctor").stdout
    assert text.count("\nok ") > 5


def test_device_that_never_trims() -> None:
    assert statuses({"succ_stores": PAGES_WITHOUT_TRIM + 1}) == [FIX]


def test_device_trimmed_at_swapon_only() -> None:
    assert statuses({"succ_stores": PAGES_WITHOUT_TRIM + 1, "trims": 1 << 18}) == [NOTE]


def test_device_that_trims() -> None:
    assert statuses({"succ_stores": PAGES_WITHOUT_TRIM + 1, "trims": (1 << 18) + 512}) == []


def test_device_that_has_hardly_written() -> None:
    assert statuses({"succ_stores": 100}) == []


def test_disk_errors() -> None:
    assert statuses({"disk_errors": 1}) == [FIX]


def test_reads_of_unknown_pages_and_the_way_out() -> None:
    assert statuses({"unknown_reads": 3}) == [FIX]
    (found,) = found_in({"unknown_reads": 3})
    assert str(found.command).endswith("preswapctl --instance vm1 trim g1")


def test_unknown_pages() -> None:
    """A new device is all unknown; a guest that reads of it is another matter."""
    assert statuses({"unknown_pages": 1000}) == []
    assert statuses({"unknown_pages": 1000, "unknown_reads": 3}) == [FIX]


def test_what_is_moved_to_disk_and_read_again() -> None:
    many = MANY_MOVED * 2
    room = {"written_back_pages": many, "written_back_room": many, "refaults": many // 3}
    (found,) = found_in(room)
    assert (found.status, "a larger pool-size" in str(found.mend)) == (NOTE, True)
    assert str(found.command).endswith("preswapctl --instance vm1 ages g1")
    (found,) = found_in({**room, "written_back_room": 0, "written_back_idle": many})
    assert "a longer writeback-idle" in str(found.mend)
    assert statuses({**room, "refaults": many // 5}) == []
    assert statuses({key: value // 4 for key, value in room.items()}) == []
    # Most of it by an operator's shrink, after which reads from disk are no wonder.
    assert statuses({**room, "written_back_pages": many * 3, "refaults": many * 2}) == []


def test_client_that_has_not_come_back() -> None:
    gone = {"awaited": True, "connections": 0}
    assert statuses(gone) == [NOTE]
    assert statuses({**gone, "away": 10.0, "held_pages": 8}) == [NOTE]


def test_server_that_was_away_for_longer_than_qemu_waits() -> None:
    assert statuses({"away": 301.0, "held_pages": 8}) == [FIX]
    assert statuses({"away": 301.0, "held_pages": 0}) == []
    assert statuses({"away": 299.0, "held_pages": 8}) == []


def test_way_out_of_unknown_pages_can_be_typed(server: RunningServer) -> None:
    with pytest.raises(nbd.Error):
        connected(server).pread(4096, BEHIND_ZONE)
    done = server.ctl("doctor", check=False)
    assert done.returncode == 1
    assert "device g1: 1 reads of pages that no guest has written" in done.stdout
    assert f"preswapctl --runtime-dir {server.runtime_dir} trim g1" in done.stdout


def test_disk_files_where_nobody_can_look(tmp_path: Path) -> None:
    (finding,) = host_checks.check_state_directory(tmp_path / ("x" * 300), "disk files")
    assert (finding.status, "File name too long" in finding.text) == (NOTE, True)


def test_shared_memory_on_disk(tmp_path: Path) -> None:
    assert host_checks.check_shared_memory(tmp_path, "x").status == FIX


def test_shared_memory_on_a_tmpfs() -> None:
    assert host_checks.check_shared_memory(Path("/dev/shm"), "x").status == OK


@pytest.mark.parametrize(
    ("text", "removes"),
    [
        ("", True),
        ("[Login]\nRemoveIPC=no\n", False),
        ("[Login]\nRemoveIPC=yes\n", True),
        ("[Login]\n#RemoveIPC=no\n", True),
        ("nonsense", True),
    ],
)
def test_logind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, removes: bool) -> None:
    (tmp_path / "logind.conf").write_text(text)
    monkeypatch.setattr(logind, "FILES", (tmp_path / "logind.conf",))
    monkeypatch.setattr(logind, "DROP_INS", ())
    assert logind.removes_ipc() is removes


def test_last_drop_in_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "10.conf").write_text("[Login]\nRemoveIPC=yes\n")
    (tmp_path / "20.conf").write_text("[Login]\nRemoveIPC=no\n")
    monkeypatch.setattr(logind, "FILES", ())
    monkeypatch.setattr(logind, "DROP_INS", (str(tmp_path),))
    assert not logind.removes_ipc()


def test_system_users_keep_their_memory() -> None:
    assert host_checks.check_remove_ipc(0) == []


def test_finding_as_text() -> None:
    text = Finding(FIX, "disk", "is full", "make room").as_text()
    assert text == "fix   disk: is full\n      -> make room"


# --- the host, on trees like its own ---


def laid(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


SWAPS = "Filename Type Size Used Priority\n"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, [OK]),
        ({"proc/swaps": SWAPS}, [OK]),
        ({"proc/swaps": f"{SWAPS}/dev/sda2 partition 9 0 -2\n"}, [NOTE]),
        (
            {
                "proc/swaps": f"{SWAPS}/dev/sda2 partition 9 0 -2\n",
                "sys/module/zswap/parameters/enabled": "Y\n",
            },
            [NOTE, NOTE],
        ),
        ({"proc/swaps": SWAPS, "sys/module/zswap/parameters/enabled": "Y\n"}, [OK]),
    ],
)
def test_host_that_swaps(tmp_path: Path, files: dict[str, str], found: list[str]) -> None:
    findings = host_checks.check_swap(laid(tmp_path, files))
    assert [finding.status for finding in findings] == found
    assert ("/dev/sda2" in findings[0].text) == (NOTE in found)


def test_pressure(tmp_path: Path) -> None:
    assert host_checks.check_pressure(tmp_path).status == NOTE
    text = "some avg10=0.00 avg60=1.25 avg300=0.10 total=7\nfull avg10=0.00 avg60=0 avg300=0\n"
    found = host_checks.check_pressure(laid(tmp_path, {"proc/pressure/memory": text}))
    assert found.status == OK
    assert "1.25 %" in found.text


@pytest.mark.parametrize(
    ("text", "statuses"),
    [
        ("Max open files            256                  256                  files\n", [NOTE]),
        ("Max open files            1048576              1048576              files\n", []),
        ("Max open files            unlimited            unlimited            files\n", []),
        ("", []),
    ],
)
def test_descriptors(tmp_path: Path, text: str, statuses: list[str]) -> None:
    (tmp_path / "limits").write_text(text)
    assert [f.status for f in check_descriptors("x", tmp_path / "limits")] == statuses


# --- what runs the guests ---


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7+deb12u5)\nCopyright", (7, 2, 9)),
        ("libvirtd (libvirt) 9.0.0\n", (9, 0, 0)),
        ("", None),
    ],
)
def test_versions_of_others(text: str, version: tuple[int, ...] | None) -> None:
    assert installed.find_version(text) == version


def test_qemu() -> None:
    found = [guest_checks.check_qemu(version) for version in (None, (6, 2, 0), (7, 0, 0))]
    assert [finding.status for (finding,) in found] == [NOTE, FIX, OK]


def test_libvirt() -> None:
    assert guest_checks.check_libvirt(None) == []
    found = [guest_checks.check_libvirt(version) for version in ((9, 0, 0), (9, 2, 0), (10, 1))]
    assert [finding.status for (finding,) in found] == [NOTE, OK, OK]


def test_first_program_that_is_there(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho QEMU emulator version 9.1.0\n")
    program.chmod(0o755)
    assert installed.first_version([str(tmp_path / "none"), str(program)]) == (9, 1, 0)
    assert installed.first_version([str(tmp_path / "none")]) is None


ENABLED = {"sys/module/apparmor/parameters/enabled": "Y\n"}
PROFILE = {"etc/apparmor.d/abstractions/libvirt-qemu": "# libvirt's\n"}
FEATURES = "sys/kernel/security/apparmor/features"
LOCAL = "etc/apparmor.d/local/abstractions/libvirt-qemu"
IN_FOLDER = "etc/apparmor.d/abstractions/libvirt-qemu.d/preswapd"
NEWER = dict.fromkeys(PROFILE, "  include if exists <abstractions/libvirt-qemu.d>\n")


@pytest.mark.parametrize(
    ("files", "statuses"),
    [
        ({}, []),
        (ENABLED, []),
        (PROFILE, []),
        ({**ENABLED, **PROFILE}, [FIX]),
        ({**ENABLED, **PROFILE, f"{FEATURES}/network_v8/af_mask": "unix"}, [OK]),
        ({**ENABLED, **PROFILE, f"{FEATURES}/network/af_unix": "yes"}, [FIX]),
        ({**ENABLED, **PROFILE, LOCAL: "# /run/preswapd/*/nbd.sock rw,\n"}, [FIX]),
        ({**ENABLED, **PROFILE, LOCAL: "  /run/preswapd/*/nbd.sock rw,\n"}, [OK]),
        ({**ENABLED, **NEWER, IN_FOLDER: "/run/preswapd/*/nbd.sock rw,\n"}, [OK]),
        ({**ENABLED, **PROFILE, IN_FOLDER: "/run/preswapd/*/nbd.sock rw,\n"}, [FIX]),
    ],
)
def test_apparmor(tmp_path: Path, files: dict[str, str], statuses: list[str]) -> None:
    found = guest_checks.check_apparmor(laid(tmp_path, files), Path("/run/preswapd"))
    assert [finding.status for finding in found] == statuses


def test_our_own_line_for_apparmor_is_the_one(tmp_path: Path) -> None:
    line = (CHECKOUT / "systemd/apparmor/libvirt-qemu").read_text()
    root = laid(tmp_path, {**ENABLED, **PROFILE, LOCAL: line})
    assert guest_checks.check_apparmor(root, Path("/run/preswapd"))[0].status == OK


# --- units ---

CHECKOUT = Path(__file__).parents[3]
ETC = "etc/systemd/system"
OURS = {
    f"{ETC}/{name}": (CHECKOUT / "systemd" / name).read_text()
    for name in ("preswapd@.service", "preswapd@.socket", "preswapd-sync@.service")
}


def unit_texts(root: Path, files: dict[str, str]) -> list[str]:
    found = unit_checks.check_units(laid(root, files))
    return [f"{f.status} {f.subject}: {f.text}" for f in found]


def test_no_units(tmp_path: Path) -> None:
    assert unit_checks.check_units(tmp_path) == []


def test_our_units_are_well(tmp_path: Path) -> None:
    assert [text.split()[0] for text in unit_texts(tmp_path, OURS)] == [OK]


def test_umask_that_kept_the_units_user_out(tmp_path: Path) -> None:
    """Of the program, of a folder above it, of one instance's file; a group may be enough."""
    config, drop_in = "etc/preswapd/vm1.toml", "etc/preswapd/vm1.toml.d/a.toml"
    program = "opt/preswapd/lib/python3.11/site-packages/preswapd/__main__.py"
    root = laid(tmp_path, {**OURS, program: "", config: "", drop_in: ""})
    files = [root / name for name in (program, config, drop_in)]

    def closed(user: int = 12345, *groups: int) -> list[str]:
        found = readable.findings(root, files, user, groups)
        return [
            str((finding.mend or "").removeprefix(f"chmod -R a+rX {root}/")) for finding in found
        ]

    assert closed() == []
    files[1].chmod(0o640)
    (root / "etc/preswapd/vm1.toml.d").chmod(0o700)
    (root / "opt/preswapd").chmod(0o700)
    assert closed() == ["opt/preswapd", config, "etc/preswapd/vm1.toml.d"]
    assert closed(12345, files[1].stat().st_gid) == ["opt/preswapd", "etc/preswapd/vm1.toml.d"]
    assert closed(files[1].stat().st_uid) == []


@pytest.mark.parametrize("missing", ["preswapd@.socket", "preswapd-sync@.service"])
def test_unit_without_what_belongs_to_it(tmp_path: Path, missing: str) -> None:
    files = {name: text for name, text in OURS.items() if not name.endswith(missing)}
    (told,) = (text for text in unit_texts(tmp_path, files) if not text.startswith(OK))
    assert told.startswith(f"{NOTE} preswapd@.service: {missing} is missing: ")


def test_unit_of_defaults_only(tmp_path: Path) -> None:
    texts = unit_texts(tmp_path, {f"{ETC}/preswapd@.service": "[Service]\nExecStart=x\n"})
    for key in ("Restart=no", "StartLimitIntervalSec=10s", "TimeoutStopSec=90s", "MemorySwapMax="):
        assert any(key in text for text in texts), key
    assert len([text for text in texts if text.startswith(FIX)]) == 4


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("RestartSec=5", "RestartSec=5"),
        ("RestartSec=1min", "RestartSec=1min"),
        ("RestartSec=1min 2s", "RestartSec=1min 2s"),
        ("RestartSec=200ms", None),
        ("DynamicUser=yes", "DynamicUser=yes"),
        ("TimeoutStopSec=30", "TimeoutStopSec=30"),
        ("MemorySwapMax=", "MemorySwapMax=infinity"),
    ],
)
def test_drop_in_of_one_instance(tmp_path: Path, setting: str, complaint: str | None) -> None:
    drop_in = {f"{ETC}/preswapd@vm1.service.d/a.conf": f"[Service]\n{setting}\n"}
    first, second = unit_texts(tmp_path, {**OURS, **drop_in})
    assert first.startswith(f"{OK} preswapd@.service")
    assert "preswapd@vm1.service" in second
    assert second.startswith(FIX if complaint else OK)
    assert complaint is None or complaint in second


def test_shared_memory_that_somebody_deleted(server: RunningServer) -> None:
    shutil.rmtree(server.shm_dir)
    found = checks(f"--runtime-dir={server.runtime_dir}")
    wrong = [check for check in found if check["status"] == FIX]
    assert {check["text"].split(":")[0] for check in wrong} == {
        f"{server.shm_dir / name} is missing" for name in ("arena", "g1.map")
    }
    assert any("the pool has" in check["text"] for check in found)


def test_instance_that_ends_meanwhile(
    module_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(client: Client) -> None:
        raise UnreachableError("it went away")

    monkeypatch.setattr(Client, "stats", gone)
    done = CliRunner().invoke(
        preswapctl, ["--runtime-dir", str(module_server.runtime_dir), "doctor"]
    )
    assert "nbdkit: version" in done.output
    assert "it went away" in done.output.splitlines()[-2]
