# SPDX-License-Identifier: BSD-3-Clause
"""doctor adds up who shares the file system of shared memory."""

import json
from pathlib import Path
from typing import Any

import pytest

from preswapd.cli.doctor.finding import FIX, NOTE, OK
from preswapd.cli.doctor.sharing import Share, add_up, check_sharing, mount_of
from tests.running import RunningServer
from tests.tmem.test_memory import mounted

MIB = 1 << 20


def grow(path: Path, size: int) -> None:
    """A sparse file, which holds nothing yet."""
    with path.open("wb") as file:
        file.truncate(size)


@pytest.fixture
def small(tmp_path: Path) -> Any:
    with mounted(tmp_path / "small", "size=48M") as path:
        (path / "vm1").mkdir()
        yield path


def shares(small: Path, limit: int) -> list[Share]:
    grow(small / "vm1" / "arena", 1 << 30)
    return [Share("vm1", small / "vm1", limit)]


def test_alone(small: Path) -> None:
    (finding,) = check_sharing(shares(small, 40 * MIB))
    assert finding.status == OK
    assert finding.text == f"{small} holds 48M: vm1 may take 40M, other programs have 0B"


def test_file_of_another_program_that_could_not_be_filled(small: Path) -> None:
    grow(small / "theirs", 32 * MIB)
    (finding,) = check_sharing(shares(small, 40 * MIB))
    assert finding.status == NOTE
    assert "and their files may grow by 32M" in finding.text
    assert finding.mend is not None
    assert finding.mend.startswith(f"mount -o remount,size=72M {small};")


def test_file_of_another_program_that_cannot_be_filled(small: Path) -> None:
    grow(small / "theirs", 32 * MIB)
    made = shares(small, 40 * MIB)
    with (small / "vm1" / "arena").open("r+b") as arena:
        arena.write(bytes(30 * MIB))
    (finding,) = check_sharing(made)
    assert finding.status == FIX
    assert "dies by SIGBUS" in finding.text


def test_limits_that_do_not_fit_together(small: Path) -> None:
    (small / "vm2").mkdir()
    both = [*shares(small, 30 * MIB), Share("vm2", small / "vm2", 30 * MIB)]
    (finding,) = check_sharing(both)
    assert finding.status == NOTE
    assert "vm1, vm2 may take 60M" in finding.text


def test_what_is_whose(small: Path) -> None:
    made = shares(small, 20 * MIB)
    (small / "vm1" / "g1.map").write_bytes(bytes(MIB))
    (small / "theirs").write_bytes(bytes(3 * MIB))
    # Of a server that does not run.
    (small / "vm3").mkdir()
    grow(small / "vm3" / "arena", 1 << 30)
    sums = add_up(small, made)
    assert (sums.total, sums.pools, sums.others, sums.growth) == (48 * MIB, 21 * MIB, 3 * MIB, 0)


def test_file_system_without_a_size(tmp_path: Path) -> None:
    with mounted(tmp_path / "unlimited", "size=0") as path:
        assert check_sharing([Share("vm1", path, MIB)]) == []


def test_directory_that_is_gone(tmp_path: Path) -> None:
    assert check_sharing([Share("vm1", tmp_path / "gone", MIB)]) == []


def test_mount_of_a_directory_in_it(small: Path) -> None:
    assert mount_of(small / "vm1") == small.resolve()


def test_doctor_of_a_running_instance(module_server: RunningServer) -> None:
    found = json.loads(module_server.ctl("--json", "doctor", check=False).stdout)["checks"]
    assert any("default may take 32" in check["text"] for check in found)
