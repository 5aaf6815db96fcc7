# SPDX-License-Identifier: BSD-3-Clause
"""doctor: what an orderly reboot of the host would lose."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from preswapd.api.messages import ServerFacts
from preswapd.cli.doctor.finding import NOTE, OK
from preswapd.cli.doctor.reboot import check_reboot, check_sync_unit
from preswapd.host import systemd
from preswapd.host.disks import write_rate
from preswapd.units import PAGE_SIZE

GIB = 1 << 30
FACTS = ServerFacts(77, "1.40", 1, "", True, "", "/run/x", "/dev/shm/x", "/var/lib/x")


def rate(number: float) -> Callable[[Path], float]:
    return lambda directory: number


def never(directory: Path) -> float:
    raise AssertionError("nothing is to be written for so little")


def test_little_in_memory_needs_no_trial(tmp_path: Path) -> None:
    assert list(check_reboot([(tmp_path, GIB // PAGE_SIZE)], never)) == []


@pytest.mark.parametrize(
    ("mebibytes", "status", "minutes"),
    [(100, OK, 10), (51.3, OK, 20), (51, NOTE, 20), (10, NOTE, 102)],
)
def test_pages_by_the_rate_of_the_disk(
    tmp_path: Path, mebibytes: float, status: str, minutes: int
) -> None:
    """Those of all instances on one disk together."""
    pages = [(tmp_path, 40 * GIB // PAGE_SIZE), (tmp_path, 20 * GIB // PAGE_SIZE)]
    (found,) = check_reboot(pages, rate(mebibytes * (1 << 20)))
    assert found.status == status
    assert f"the 60G that guests have in memory take {minutes} minutes to the disk" in found.text
    assert ("by force after 30" in found.text) == (status == NOTE)


def test_other_disks_are_for_themselves(tmp_path: Path) -> None:
    pages = [(Path("/dev/shm"), 5 * GIB // PAGE_SIZE), (tmp_path, 6 * GIB // PAGE_SIZE)]
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("the temporary directory is in shared memory")
    texts = [found.text for found in check_reboot(pages, rate(GIB))]
    assert [text.split()[1] for text in texts] == ["5G", "6G"]


def test_disk_that_cannot_be_tried(tmp_path: Path) -> None:
    def fails(directory: Path) -> float:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (found,) = check_reboot([(tmp_path, 5 * GIB // PAGE_SIZE)], fails)
    assert (found.status, "Read-only file system" in found.text) == (NOTE, True)


def test_rate_leaves_nothing_behind(tmp_path: Path) -> None:
    assert write_rate(tmp_path, seconds=0.05) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("pid", "state", "statuses"),
    [
        ("77", "active", [OK]),
        ("77", "inactive", [NOTE]),
        ("77", "failed", [NOTE]),
        ("78", "inactive", []),  # another server than systemd's
    ],
)
def test_sync_unit_of_a_server_of_systemd(pid: str, state: str, statuses: list[str]) -> None:
    known = {
        "preswapd@vm1.service": {"MainPID": pid},
        "preswapd-sync@vm1.service": {"ActiveState": state},
    }
    found = check_sync_unit("vm1", FACTS, lambda unit, name: {name: known[unit][name]})
    assert [finding.status for finding in found] == statuses
    if statuses == [NOTE]:
        assert state in found[0].text


def test_nothing_is_said_where_systemd_cannot_be_asked() -> None:
    assert check_sync_unit("vm1", FACTS, lambda unit, name: {}) == []


def test_host_without_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "BOOTED", tmp_path / "missing")
    assert systemd.properties("x.service", "MainPID") == {}


def test_what_systemctl_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "BOOTED", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "systemctl"
    program.write_text('#!/bin/sh\necho "MainPID=12"; echo "$*"; echo "Other=x=y"\n')
    program.chmod(0o755)
    assert systemd.properties("a@b.service", "MainPID", "Other") == {
        "MainPID": "12",
        "Other": "x=y",
    }
    program.write_text("#!/bin/sh\nexit 1\n")
    assert systemd.properties("a@b.service", "MainPID") == {}
