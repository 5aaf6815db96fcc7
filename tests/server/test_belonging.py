# SPDX-License-Identifier: BSD-3-Clause
"""A start with other disk files than those that the pages in memory need."""

import os

import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import connected
from tests.running import RunningServer, run

DATA = os.urandom(PAGE)


@pytest.fixture
def killed(server: RunningServer) -> RunningServer:
    connected(server).pwrite(DATA, PAGE)
    server.kill()
    return server


@pytest.mark.parametrize("more", [[], ["--discard-state"]], ids=["plain", "discard"])
def test_other_directory_is_refused_with_the_one_before(
    killed: RunningServer, more: list[str]
) -> None:
    """And never with the advice to start empty."""
    other = killed.state_dir.with_name("other")
    before = {path: path.read_bytes() for path in killed.state_dir.iterdir()}
    done = run([*killed.command(), f"--state-dir={other}", *more])
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert f"start it with --state-dir {killed.state_dir}" in done.stderr
    assert "discard" not in done.stderr
    assert {path: path.read_bytes() for path in killed.state_dir.iterdir()} == before
    killed.start()
    assert bytes(connected(killed).pread(PAGE, PAGE)) == DATA


def test_disk_files_that_were_moved_are_found(killed: RunningServer) -> None:
    other = killed.state_dir.with_name("other")
    killed.state_dir.rename(other)
    killed.extra.append(f"--state-dir={other}")
    killed.start()
    assert bytes(connected(killed).pread(PAGE, PAGE)) == DATA


def test_instance_without_devices_may_go_anywhere(killed: RunningServer) -> None:
    killed.start()
    killed.ctl("remove", "g1", "--yes")
    killed.stop()
    killed.extra.append(f"--state-dir={killed.base / 'other'}")
    killed.start()
    assert killed.json_stats()["devices"].keys() == {"g1"}
