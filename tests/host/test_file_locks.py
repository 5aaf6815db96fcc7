# SPDX-License-Identifier: BSD-3-Clause
"""Who holds a lock, asked without taking it."""

import fcntl
import os
from pathlib import Path

from preswapd.host.file_locks import holder


def test_holder_of_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    with open(path, "w") as file:
        assert holder(path) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(path) == os.getpid()
    assert holder(path) is None


def test_who_waits_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    status = path.stat()
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    locks = tmp_path / "locks"
    for line, found in (
        (f"1: -> FLOCK  ADVISORY  WRITE 41 {file} 0 EOF", None),
        (f"1: POSIX  ADVISORY  WRITE 42 {file} 0 EOF", None),
        (f"1: FLOCK  ADVISORY  WRITE 43 {file}0 0 EOF", None),
        (f"1: FLOCK  ADVISORY  WRITE 44 {file} 0 EOF", 44),
    ):
        locks.write_text(f"{line}\n")
        assert holder(path, locks) == found


def test_nobody_can_tell(tmp_path: Path) -> None:
    assert holder(tmp_path, tmp_path / "missing") is None
