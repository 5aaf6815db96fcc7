"""doctor: what it sees on this host and in a running server."""

import json
from pathlib import Path
from typing import Any

import pytest

from preswapd import logind
from preswapd.cli import host_checks
from preswapd.cli.finding import FIX, NOTE, OK, Finding
from preswapd.cli.instance_checks import PAGES_WITHOUT_TRIM, check_device
from tests.running import PRESWAPCTL, RunningServer, run

DEVICE = {
    "size": 1 << 30,
    "succ_stores": 0,
    "failed_stores": 0,
    "trims": 0,
    "disk_errors": 0,
    "connections": 1,
}


def statuses(device: dict[str, int]) -> list[str]:
    return [finding.status for finding in check_device("g1", {**DEVICE, **device})]


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


def test_quarantine() -> None:
    assert statuses({"quarantined": True}) == [NOTE]
    assert statuses({"quarantined": True, "quarantined_reads": 3}) == [FIX]


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
