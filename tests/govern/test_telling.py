# SPDX-License-Identifier: BSD-3-Clause
"""What the governor says: why one has less than another can be read from it."""

import re

import pytest

from preswapd.govern.policy import Decision, Reason, Rules
from preswapd.govern.shares import MIB, Pool, Share, divide
from preswapd.govern.telling import sentence, why

GIB = 1 << 30


def told(total: int, pools: dict[str, Pool], **shares: Share) -> dict[str, str]:
    """Of pools whose limits are what the policy gives them."""
    rules = Rules(GIB, shares)
    limits = divide(total, {name: rules.share(name) for name in pools}, pools)
    set_now = {
        name: Pool(
            min(pool.used, limits[name]), pool.idle, pool.pool_limit, limits[name], pool.wants
        )
        for name, pool in pools.items()
    }
    return {name: why(name, rules, set_now, total) for name in pools}


def test_weights_tell_why_b_has_less_than_a() -> None:
    full = Pool(8 * GIB, wants=True)
    found = told(4 * GIB, {"a": full, "b": full}, a=Share(300))
    assert found["a"].startswith("it takes 3G and would take more. Its part is 3G: ")
    assert "its floor of 4M, and 300 of 400 by weight of the 4G beyond all floors" in found["a"]
    assert "Its part is 1G: its floor of 4M, and 100 of 400 by weight of the" in found["b"]


def test_one_that_is_full_and_asks_for_no_more() -> None:
    found = told(4 * GIB, {"a": Pool(4 * GIB), "b": Pool(4 * GIB)})
    assert "it takes 2G, and what its guest swaps out beyond its limit goes to disk" in found["a"]


def test_idle_pages_tell_why_b_has_less_than_a() -> None:
    full = Pool(4 * GIB, wants=True)
    found = told(5 * GIB, {"a": full, "b": Pool(4 * GIB, idle=4 * GIB)})
    assert "100 of 125 by weight" in found["a"]
    assert re.search(
        r"Nobody has used \S+ of it for 30 minutes, and such a page costs as", found["b"]
    )
    assert "its weight of 100 counts as 25" in found["b"]


def test_floor_cap_and_operator() -> None:
    pools = {"a": Pool(GIB), "b": Pool(GIB, pool_limit=2 * GIB), "c": Pool(GIB)}
    plenty = told(20 * GIB, pools, a=Share(cap=GIB))
    assert "That is as much as its cap says: there is enough for all" in plenty["a"]
    assert "as much as its operator's pool_limit says" in plenty["b"]
    scarce = told(512 * MIB, pools, a=Share(floor=GIB))
    assert "That is its floor: there is not more for it" in scarce["a"]


def test_what_others_do_not_use() -> None:
    pools = {"a": Pool(8 * GIB, wants=True), "b": Pool(MIB), "c": Pool(GIB)}
    found = told(4 * GIB, pools)
    assert "it gets more when it fills up" in found["b"]
    assert "It has more, because others do not use all of theirs" in found["a"]
    assert "It has less, because it does not need all of it and others do" in found["c"]


def test_what_is_only_dropped_goes_to_no_disk() -> None:
    """Of a cache all, of others what they cache of images."""
    cache, both = Pool(4 * GIB, governed=GIB, yields=True), Pool(4 * GIB, governed=GIB, cached=GIB)
    assert (cache.dropped, both.dropped, Pool(GIB, governed=2 * GIB, cached=GIB).dropped) == (
        3 * GIB,
        GIB,
        0,
    )

    def said(reason: Reason, pool: Pool) -> str:
        seen = (0, GIB, 0.0, GIB, GIB, GIB, pool.excess)
        return sentence(Decision(0.0, reason, *seen, {"a": GIB}, {"a": None}, pool.dropped))

    assert said(Reason.SHORT, cache).endswith("; 3G above these limits are of images, and dropped")
    assert said(Reason.SHORT, both).endswith(
        "; 1G above these limits are of images, and dropped; 2G above these limits go to disk"
    )
    assert "disk" not in said(Reason.BEHIND, cache)
    assert "3G of images are being dropped" in said(Reason.BEHIND, cache)
    text = said(Reason.BEHIND, both)
    assert "2G are on their way to disk, which takes its time, and 1G of images" in text


@pytest.mark.parametrize("reason", Reason)
def test_every_decision_has_its_numbers(reason: Reason) -> None:
    decision = Decision(
        time=0.0,
        reason=reason,
        available=100 * MIB,
        reserve=GIB,
        pressure=2.5,
        used=3 * GIB,
        room=2 * GIB,
        total=2 * GIB,
        excess=924 * MIB,
        limits={"vm1": 2 * GIB},
        before={"vm1": None},
    )
    text = sentence(decision)
    assert "100M available, reserve 1G" in text
    assert "the pools took 3G, and may take 2G together" in text
    assert "vm1 no limit -> 2G" in text
    assert "924M above these limits go to disk" in text
    assert "\n" not in text
