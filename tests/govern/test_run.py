# SPDX-License-Identifier: BSD-3-Clause
"""When the instances are asked, and what is read of the host; the whole at work is in
test_governor.py."""

from pathlib import Path

import pytest

from preswapd.govern.config import Config
from preswapd.govern.policy import Readings, Rules, State
from preswapd.govern.readings import Host, Instances
from preswapd.govern.run import Governor
from preswapd.govern.shares import MIB, Pool

GIB = 1 << 30
RESERVE = GIB


@pytest.fixture
def governor(tmp_path: Path) -> Governor:
    return Governor(
        Config(Rules(RESERVE), ()), Host(), Instances(tmp_path, Host().available), lambda *_: None
    )


def due(
    governor: Governor,
    available: int,
    *,
    pool: Pool,
    before: int | None = None,
    pressure: float = 0.0,
) -> float:
    """After how long without a look the instances are asked."""
    before = available if before is None else before
    governor.seen = Readings(100.0, before, 0.0, {"vm": pool})
    tenths = range(1, 200)
    return next(
        tenth / 10 for tenth in tenths if governor.is_due(100 + tenth / 10, available, pressure)
    )


def test_instances_are_asked_as_often_as_it_needs(governor: Governor) -> None:
    quiet, wants = Pool(GIB, governed=2 * GIB), Pool(GIB, governed=GIB, wants=True)
    behind = Pool(2 * GIB, governed=GIB)
    plenty, near, short = 10 * GIB, RESERVE + 100 * MIB, RESERVE - MIB
    assert due(governor, plenty, pool=quiet) == 9.9
    assert due(governor, plenty, pool=quiet, pressure=50) == 9.9
    assert due(governor, plenty, pool=wants) == 1.9
    assert due(governor, plenty, pool=quiet, before=plenty + GIB) == 1.9
    assert due(governor, near, pool=quiet) == 4.9
    assert due(governor, near, pool=quiet, before=near + 65 * MIB) == 1.9
    assert due(governor, near, pool=quiet, pressure=0.2) == 0.2
    governor.state = State(total=2 * GIB)
    assert due(governor, short, pool=quiet) == 0.2
    # That is set, or within the dead band: the host is full, and stays so.
    governor.state = State(total=GIB)
    assert due(governor, short, pool=quiet) == 4.9
    # Pages are on their way: that takes as long as it takes, unless still more is short.
    assert due(governor, short, pool=behind) == 0.5
    governor.state = State(total=3 * GIB)
    assert due(governor, short, pool=behind) == 0.2
    # What pressure has taken is not given again, and not taken again either.
    governor.state = State(held_until=1000.0)
    assert due(governor, near, pool=quiet, pressure=0.2) == 4.9


def test_pressure_is_of_the_time_since_the_last_look(tmp_path: Path) -> None:
    psi = tmp_path / "memory"
    host = Host(pressure=psi)
    assert host.pressure(1.0) is None
    psi.write_text("some avg10=9.00 avg60=0.00 avg300=0.00 total=500000\nfull total=0\n")
    assert host.pressure(2.0) is None
    psi.write_text("some avg10=9.00 avg60=0.00 avg300=0.00 total=510000\nfull total=0\n")
    assert host.pressure(4.0) == pytest.approx(0.5)
    assert host.pressure(6.0) == 0
    psi.write_text("nonsense\n")
    assert host.pressure(8.0) is None


def test_this_host_says_what_it_has() -> None:
    assert Host().available() > 0


def test_what_was_freed_a_moment_ago_is_available(tmp_path: Path) -> None:
    """A pool that gives its pages back is seen to have done so at once."""
    meminfo, zoneinfo = tmp_path / "meminfo", tmp_path / "zoneinfo"
    meminfo.write_text("MemAvailable:       3072 kB\n")
    host = Host(meminfo, zoneinfo=zoneinfo)
    assert host.available() == 3 * MIB
    zoneinfo.write_text("    cpu: 0\n              count:    512\n")
    assert host.available() == 5 * MIB


def test_nobody_there(governor: Governor) -> None:
    """No directory, or none that holds a server: a governor that is there before its instances."""
    governor.turn()
    assert governor.status()["instances"] == {}
    (governor.instances.root / "vm").mkdir()
    governor.seen = None
    governor.turn()
    assert governor.status()["absent"] == {}
