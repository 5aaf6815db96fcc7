# SPDX-License-Identifier: BSD-3-Clause
"""The rules one by one, each on a host that is made for it."""

from dataclasses import replace
from typing import Any

import pytest

from preswapd.govern.policy import (
    FORGET_SECONDS,
    PRESSURE_HOLDS,
    QUIET_SECONDS,
    SHORT_TICK_SECONDS,
    TICK_SECONDS,
    Decision,
    Readings,
    Reason,
    Rules,
    State,
    band,
    decide,
    tick_seconds,
)
from preswapd.govern.shares import LEAST, MIB, Pool, Share, divide
from tests.govern.world import GIB

RESERVE = GIB
RULES = Rules(RESERVE)


class Host:
    """Pools that take what they take; each look is a tick, and what is decided is in force."""

    def __init__(self, rules: Rules, available: int, **pools: Pool) -> None:
        self.rules = rules
        self.available = available
        self.pressure: float | None = 0.0
        self.pools = pools
        self.state = State()
        self.time = 1000.0

    def tick(self, seconds: float = TICK_SECONDS) -> list[Decision]:
        self.time += seconds
        seen = Readings(self.time, self.available, self.pressure, self.pools)
        self.state, decisions = decide(self.rules, self.state, seen)
        for decision in decisions:
            for name, limit in decision.limits.items():
                self.change(name, governed=limit)
        return list(decisions)

    def wait(self, seconds: float) -> list[Decision]:
        return [one for _ in range(int(seconds / TICK_SECONDS)) for one in self.tick()]

    def change(self, name: str, **values: Any) -> None:
        self.pools = {**self.pools, name: replace(self.pools[name], **values)}

    @property
    def limits(self) -> dict[str, int]:
        return {name: pool.limit for name, pool in self.pools.items()}


def host_of_two() -> Host:
    """1 GiB each, and 4 GiB beyond the reserve."""
    host = Host(RULES, RESERVE + 4 * GIB, a=Pool(GIB), b=Pool(GIB))
    (first,) = host.tick()
    assert (first.reason, first.room) == (Reason.START, 6 * GIB)
    return host


def test_first_look_gives_what_there_is() -> None:
    assert host_of_two().limits == {"a": 3 * GIB, "b": 3 * GIB}


def test_nothing_changes_where_nothing_has_changed() -> None:
    assert host_of_two().wait(3600) == []


def test_whole_gap_is_taken_back_at_once() -> None:
    """Whatever the reserve is short of, in one decision, and no page of it twice."""
    host = host_of_two()
    host.available = RESERVE - 600 * MIB
    (decision,) = host.tick(SHORT_TICK_SECONDS)
    assert (decision.reason, decision.excess) == (Reason.SHORT, 600 * MIB)
    assert host.limits == {"a": GIB - 300 * MIB, "b": GIB - 300 * MIB}
    # A disk on its way: as much is available as has gone.
    for moved in range(0, 300, 10):
        host.available = RESERVE - 600 * MIB + 2 * moved * MIB
        host.change("a", used=GIB - moved * MIB)
        host.change("b", used=GIB - moved * MIB)
        assert [one for one in host.tick(SHORT_TICK_SECONDS) if one.limits] == []


def test_room_that_others_take_is_not_given_twice() -> None:
    """Before anything is short: no page has to move for it."""
    host = host_of_two()
    host.available -= 2 * GIB
    (decision,) = host.tick()
    assert (decision.reason, decision.excess) == (Reason.NARROW, 0)
    assert host.limits == {"a": 2 * GIB, "b": 2 * GIB}


def test_growth_is_an_eighth_of_the_gap_after_quiet() -> None:
    host = host_of_two()
    host.available -= 2 * GIB
    host.tick()
    host.available += 2 * GIB
    assert host.wait(QUIET_SECONDS - TICK_SECONDS) == []
    totals = [sum(host.limits.values())]
    for decision in (one for _ in range(60) for one in host.tick()):
        assert decision.reason is Reason.GROWTH
        totals.append(sum(host.limits.values()))
    assert totals[1] - totals[0] == 2 * GIB // 8
    assert totals[2] - totals[1] == pytest.approx(totals[1] - totals[0], rel=0.2)
    assert totals == sorted(totals)
    assert 6 * GIB - 3 * band(6 * GIB) <= totals[-1] <= 6 * GIB


def test_one_dip_in_the_quiet_time_counts() -> None:
    """Growth goes by the least room of all that time, not by this moment's."""
    host = host_of_two()
    host.available -= 2 * GIB
    host.tick()
    for _ in range(100):
        host.available += 2 * GIB
        assert host.wait(20) == []
        host.available -= 2 * GIB
        assert host.tick() == []


def test_wait_is_longer_where_what_was_given_is_taken_back() -> None:
    """And short again when that is long ago."""
    host = host_of_two()

    def dip() -> None:
        host.available -= 2 * GIB
        assert [one.reason for one in host.tick()] == [Reason.NARROW]
        host.available += 2 * GIB

    def seconds_until_growth() -> float:
        before = host.time
        while not host.tick():
            pass
        return host.time - before

    dip()
    assert seconds_until_growth() == QUIET_SECONDS
    dip()
    assert seconds_until_growth() == 2 * QUIET_SECONDS
    dip()
    assert seconds_until_growth() == 4 * QUIET_SECONDS
    host.wait(2 * FORGET_SECONDS)
    dip()
    assert seconds_until_growth() == QUIET_SECONDS


def test_dead_band() -> None:
    host = host_of_two()
    for change in (1, -1) * 50:
        host.available += change * (band(6 * GIB) - MIB)
        assert host.tick() == []


def test_dead_band_of_each() -> None:
    """A pool that fills up a little does not move everybody's limit a little."""
    host = Host(RULES, RESERVE, a=Pool(900 * MIB, wants=True), b=Pool(3 * GIB))
    host.tick()
    assert host.limits["a"] == 1189 * MIB
    for more in (5, 10, 0) * 10:
        host.change("a", used=(900 + more) * MIB)
        host.available = RESERVE - more * MIB
        assert [one for one in host.tick() if one.limits] == []
    host.change("a", used=940 * MIB)
    host.available = RESERVE - 40 * MIB
    (decision,) = (one for one in host.tick() if one.limits)
    assert decision.reason is Reason.SHARES


def test_pressure_counts_near_the_reserve_alone() -> None:
    host = host_of_two()
    host.pressure = 50.0
    assert host.wait(60) == []
    host.available = 2 * RESERVE - MIB
    (narrow,) = host.tick(SHORT_TICK_SECONDS)
    assert narrow.reason is Reason.NARROW
    assert host.tick(SHORT_TICK_SECONDS) == []
    (decision,) = host.tick(SHORT_TICK_SECONDS)
    assert decision.reason is Reason.PRESSURE
    assert decision.total == 2 * GIB * 3 // 4


@pytest.mark.parametrize("pressure", [0.0, 0.1, None])
def test_no_pressure_takes_nothing(pressure: float | None) -> None:
    host = host_of_two()
    host.pressure = pressure
    host.available = RESERVE + 100 * MIB
    host.tick()
    assert host.wait(20) == []


def test_pressure_that_comes_and_goes_takes_nothing() -> None:
    host = host_of_two()
    host.available = RESERVE + 100 * MIB
    host.tick()
    for tick in range(99):
        host.pressure = 5.0 if tick % 3 else 0.0
        assert host.tick(SHORT_TICK_SECONDS) == []


def test_what_pressure_has_taken_is_not_given_again_soon() -> None:
    host = host_of_two()
    host.available, host.pressure = RESERVE + 100 * MIB, 5.0
    taken = host.wait(6)[-1]
    assert taken.reason is Reason.PRESSURE
    host.pressure, host.available = 0.0, RESERVE + 4 * GIB
    assert host.wait(PRESSURE_HOLDS - 8) == []
    assert [one.reason for one in host.wait(8)] == [Reason.GROWTH]


def test_disk_that_is_too_slow_is_told() -> None:
    host = host_of_two()
    host.available = RESERVE - 600 * MIB
    host.tick()
    told = host.wait(120)
    assert {one.reason for one in told} == {Reason.BEHIND}
    assert len(told) == 2
    assert (told[0].excess, told[0].limits) == (600 * MIB, {})


def test_floors_hold_whatever_is_short() -> None:
    rules = Rules(RESERVE, {"a": Share(floor=GIB), "b": Share(floor=512 * MIB)})
    host = Host(rules, RESERVE + 4 * GIB, a=Pool(GIB), b=Pool(GIB))
    host.tick()
    host.available = 0
    reasons = [one.reason for one in host.wait(4)]
    assert reasons == [Reason.SHORT, Reason.FLOORS]
    assert host.limits == {"a": GIB, "b": 512 * MIB}


def test_restart_of_the_governor_changes_nothing() -> None:
    host = host_of_two()
    host.available -= 2 * GIB
    host.tick()
    before = host.limits
    host.available += 2 * GIB
    host.state = State()
    assert host.wait(QUIET_SECONDS) == []
    assert host.limits == before
    assert [one.reason for one in host.tick()] == [Reason.GROWTH]


def test_instance_that_comes_is_governed_at_once() -> None:
    """Its pages were in memory before: they are no growth of others, and none of its own."""
    host = host_of_two()
    host.available -= 2 * GIB
    host.tick()
    host.pools = {**host.pools, "c": Pool(500 * MIB)}
    (decision,) = host.tick()
    assert decision.reason is Reason.START
    assert decision.excess == 0
    assert sum(host.limits.values()) <= 4 * GIB + 500 * MIB


def test_instance_that_restarts_moves_no_page() -> None:
    host = Host(RULES, RESERVE + 100 * MIB, a=Pool(3 * GIB), b=Pool(GIB), c=Pool(GIB))
    host.tick()
    gone, rest = host.pools["a"], {name: host.pools[name] for name in ("b", "c")}
    host.pools = rest
    away = host.wait(60)
    assert [one.excess for one in away if one.excess] == []
    host.pools = {**host.pools, "a": gone}
    back = host.wait(60)
    assert [one.excess for one in back if one.excess] == []


def test_nobody_to_govern() -> None:
    host = Host(RULES, RESERVE - MIB)
    assert host.wait(100) == []


def test_ticks() -> None:
    found = [tick_seconds(RULES, available) for available in (0, 2 * RESERVE - 1, 2 * RESERVE)]
    assert found == [SHORT_TICK_SECONDS, SHORT_TICK_SECONDS, TICK_SECONDS]


# --- shares ---


def test_shares_by_weight() -> None:
    """Of what is above the floors, where each would take more than there is."""
    pools = {name: Pool(100 * GIB) for name in "abc"}  # more than there is
    shares = {"a": Share(100), "b": Share(300), "c": Share(100, floor=GIB)}
    assert divide(6 * GIB + 8 * MIB, shares, pools) == {
        "a": GIB + LEAST,
        "b": 3 * GIB + LEAST,
        "c": 2 * GIB,
    }


def test_what_one_does_not_use_the_others_get() -> None:
    pools = {"a": Pool(0), "b": Pool(100 * GIB), "c": Pool(100 * GIB)}
    limits = divide(4 * GIB, dict.fromkeys(pools, Share()), pools)
    assert limits["a"] == LEAST
    assert limits["b"] == limits["c"] > 1.9 * GIB


def test_who_is_short_of_its_share_gets_it_step_by_step() -> None:
    """Not all at once: what it then does not use would have cost the other its pages."""
    pools = {"a": Pool(GIB, governed=GIB), "b": Pool(3 * GIB, governed=3 * GIB)}
    shares = dict.fromkeys(pools, Share())
    assert divide(4 * GIB, shares, pools) == {"a": GIB, "b": 3 * GIB}
    pools["a"] = Pool(GIB, governed=GIB, wants=True)
    limits = divide(4 * GIB, shares, pools)
    assert limits == {"a": 1344 * MIB, "b": 2752 * MIB}
    # It does not take that: nothing goes back and forth.
    pools = {"a": Pool(GIB, governed=limits["a"]), "b": Pool(limits["b"], governed=limits["b"])}
    assert divide(4 * GIB, shares, pools) == limits


def test_idle_pages_count_a_quarter() -> None:
    """Of two that take as much, the one that uses it gets it; where there is enough, both do."""
    pools = {"busy": Pool(4 * GIB), "idle": Pool(4 * GIB, idle=4 * GIB)}
    shares = dict.fromkeys(pools, Share())
    limits = divide(5 * GIB, shares, pools)
    assert limits["busy"] == pytest.approx(4 * GIB, rel=0.01)
    assert limits["idle"] == pytest.approx(GIB, rel=0.01)
    assert min(divide(10 * GIB, shares, pools).values()) > 4 * GIB
    # And once: what is left of the idle ones is not taxed again until nothing is.
    pools["idle"] = Pool(limits["idle"], idle=limits["idle"], governed=limits["idle"])
    assert divide(5 * GIB, shares, pools)["idle"] == pytest.approx(GIB, rel=0.01)


def test_caps_and_the_operators_limit() -> None:
    pools = {"a": Pool(4 * GIB), "b": Pool(4 * GIB, pool_limit=GIB), "c": Pool(0)}
    shares = {"a": Share(cap=2 * GIB), "b": Share(floor=3 * GIB), "c": Share()}
    limits = divide(20 * GIB, shares, pools)
    assert (limits["a"], limits["b"]) == (2 * GIB, GIB)
    assert limits["c"] == 17 * GIB


def test_who_yields_gets_what_the_others_leave() -> None:
    pools = {"vm": Pool(2 * GIB, wants=True), "cache": Pool(4 * GIB, yields=True)}
    shares = {"vm": Share(), "cache": Share(1000)}
    limits = divide(3 * GIB, shares, pools)
    assert limits["vm"] == int(2.5 * GIB) + 64 * MIB
    assert limits["cache"] == 3 * GIB - limits["vm"]
    assert divide(2 * GIB, shares, pools)["cache"] <= LEAST
