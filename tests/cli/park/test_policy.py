# SPDX-License-Identifier: BSD-3-Clause
"""How far a balloon goes: the policy with a model of a guest, hours of it in no time."""

import random

import pytest

from preswapd.cli.park.policy import (
    MIB,
    MOST_READS,
    SLACK,
    Action,
    Rules,
    Seen,
    Wake,
    after_absence,
    begin,
    decide,
    default_floor,
    may_be_swapped,
    rules_for,
)
from tests.cli.park.guest_model import LOOK_SECONDS, ModelGuest

FLOOR = 128 * MIB
RULES = rules_for(1024 * MIB, FLOOR)


def test_idle_guest_comes_to_the_floor_in_steps() -> None:
    guest = ModelGuest()
    state, action = guest.park(RULES)
    assert (action, state.target) == (Action.DONE, FLOOR)
    assert guest.has == pytest.approx(128, abs=1)
    steps = [a - b for a, b in zip(guest.targets, guest.targets[1:], strict=False)]
    assert len(guest.targets) == 16
    assert set(steps) == {RULES.step}
    assert guest.targets[-1] == FLOOR


def test_guest_that_thrashes_gets_the_last_step_back() -> None:
    guest = ModelGuest(hot=400)
    state, action = guest.park(RULES)
    assert action is Action.THRASHES
    # The lowest of the steps that hold what it uses.
    assert state.target in guest.targets[:-2]
    assert 480 * MIB <= state.target < 480 * MIB + RULES.step
    before = guest.swapped_in
    guest.pass_time(state.target, 60)
    assert (guest.swapped_in - before) / 60 < MOST_READS


def test_guest_that_thrashes_at_once_keeps_all() -> None:
    guest = ModelGuest(hot=1000)
    state, action = guest.park(RULES)
    assert (action, state.target) == (Action.THRASHES, 1024 * MIB)


def test_burst_of_reads_is_no_thrashing() -> None:
    guest = ModelGuest()
    state, action = begin(RULES, guest.seen())
    guest.swapped_in += 900  # what it uses and was swapped out, once
    for _ in range(8):
        guest.pass_time(state.target)
        state, action = decide(RULES, state, guest.seen())
        assert action in (Action.WAIT, Action.STEP)
    assert state.target < 1024 * MIB - RULES.step


def run(reads: list[int], out: int = 0) -> Action:
    """Windows of a guest that gives nothing: what it reads in each, and swaps out in each."""
    state, action = begin(RULES, Seen(0.0, 1024 * MIB, 0, 0, 4096 * MIB))
    back = 0
    for number, pages in enumerate(reads, 1):
        back += pages
        now = number * RULES.window
        state, action = decide(
            RULES, state, Seen(now, 1024 * MIB - number, back, number * out, 4096 * MIB)
        )
        if action is not Action.WAIT:
            break
    return action


def test_two_bursts_are_no_thrashing() -> None:
    much = int(MOST_READS * RULES.window)
    assert run([much] * 4 + [0] + [much] * 4, out=500) is Action.WAIT
    assert run([much] * 5, out=500) is Action.THRASHES


def test_guest_that_swaps_out_is_waited_for_longer() -> None:
    """Its disk is slow, or others in it take what was made free."""
    assert run([0] * 5) is Action.STUCK
    assert run([0] * 5, out=500) is Action.WAIT
    assert run([0] * 60, out=500) is Action.STUCK


def test_guest_without_a_driver_is_left_alone() -> None:
    guest = ModelGuest(driver=False)
    state, action = guest.park(RULES)
    assert (action, state.target) == (Action.STUCK, 1024 * MIB)
    assert guest.time < 2 * RULES.patience


def test_guest_that_gives_no_more_keeps_what_it_has() -> None:
    guest = ModelGuest(kernel=300, hot=0)
    state, action = guest.park(RULES)
    assert (action, state.target) == (Action.STUCK, 300 * MIB)


def test_slow_disk_is_waited_for() -> None:
    guest = ModelGuest(swap_speed=1)
    state, action = guest.park(RULES)
    assert (action, state.target) == (Action.DONE, FLOOR)
    assert guest.time > 500


def test_time_without_a_server_is_not_the_guests_doing() -> None:
    """It could not swap, and the new server's counters begin anew."""
    guest = ModelGuest(speed=0)
    state, _ = begin(RULES, guest.seen())
    guest.pass_time(state.target, 25)
    assert decide(RULES, state, guest.seen())[1] is Action.STUCK
    state = after_absence(state, guest.seen())
    assert decide(RULES, state, guest.seen())[1] is Action.WAIT
    guest.pass_time(state.target, RULES.patience)
    assert decide(RULES, state, guest.seen())[1] is Action.STUCK


def test_full_swap_ends_it_before_the_step() -> None:
    guest = ModelGuest(room=400)
    _, action = guest.park(RULES)
    assert action is Action.FULL
    assert guest.swapped <= 400
    assert guest.room - guest.swapped < RULES.step / MIB


def test_one_that_has_no_more_is_done() -> None:
    guest = ModelGuest(whole=120)
    state, action = begin(RULES, guest.seen())
    assert (action, state.target) == (Action.DONE, 120 * MIB)


def test_park_goes_on_where_it_was_interrupted() -> None:
    guest = ModelGuest()
    state, _ = begin(RULES, guest.seen())
    for _ in range(40):
        guest.pass_time(state.target)
    again, action = guest.park(rules_for(int(guest.has * MIB), FLOOR))
    assert (action, again.target) == (Action.DONE, FLOOR)


@pytest.mark.parametrize("seed", range(300))
def test_any_guest_ends_in_a_state_that_it_can_live_in(seed: int) -> None:
    """Between floor and whole, never thrashing when it is over, steps down and at most one up."""
    source = random.Random(seed)
    guest = ModelGuest(
        whole=source.randrange(200, 4096),
        unused=source.randrange(0, 190),
        hot=source.randrange(0, 2000),
        kernel=source.randrange(40, 160),
        room=source.choice([50, 500, 8000]),
        speed=source.choice([5, 100, 1000]),
        swap_speed=source.choice([1, 20, 500]),
        driver=source.random() > 0.1,
        trickle=source.randrange(0, 90),
    )
    guest.hot = min(guest.hot, guest.whole - guest.kernel)
    whole = guest.whole * MIB
    floor = default_floor(whole)
    rules = rules_for(whole, floor)
    state, action = guest.park(rules, 40_000)
    assert floor <= state.target <= whole
    up = [b - a for a, b in zip(guest.targets, guest.targets[1:], strict=False) if b > a]
    assert len(up) <= (action in (Action.THRASHES, Action.STUCK))
    assert guest.swapped <= guest.room
    for _ in range(20):  # what had to go out meanwhile has gone
        guest.pass_time(state.target)
    before = guest.swapped_in
    guest.pass_time(state.target, 10)
    assert (guest.swapped_in - before) / 10 < MOST_READS
    if action is Action.DONE:
        assert guest.has * MIB <= max(floor, state.target) + SLACK


@pytest.mark.parametrize(
    ("whole", "floor"),
    [(1 << 30, 146), (8 << 30, 1170), (512 << 20, 128), (100 << 20, 100)],
)
def test_default_floor(whole: int, floor: int) -> None:
    assert default_floor(whole) == floor * MIB
    if whole >= 1 << 30:
        assert default_floor(whole) <= 0.15 * whole


def test_steps_are_never_tiny() -> None:
    assert rules_for(140 * MIB, 128 * MIB).step == 16 * MIB
    assert rules_for(16 << 30, 1 << 30) == Rules(1 << 30, 960 * MIB)


def test_what_may_be_swapped() -> None:
    assert may_be_swapped(1000, 100, None) == 900
    assert may_be_swapped(1000, 100, 600) == 300
    assert may_be_swapped(1000, 100, 950) == 0


# --- waking ---


def reading(rate: float, seconds: float, wake: Wake | None = None) -> bool:
    now, pages = 0.0, 0.0
    wake = wake or Wake(Seen(0.0, 0, 0, 0, 0))
    while now < seconds:
        now += LOOK_SECONDS
        pages += rate * LOOK_SECONDS
        wake, wakes = wake.look(Seen(now, 0, int(pages), 0, 0))
        if wakes:
            return True
    return False


@pytest.mark.parametrize(("rate", "wakes"), [(0, False), (98, False), (100, True), (5000, True)])
def test_parked_guest_wakes_at_a_hundred_pages_a_second(rate: float, wakes: bool) -> None:
    assert reading(rate, 60) == wakes


def test_a_moment_of_reads_wakes_nobody() -> None:
    wake, wakes = Wake(Seen(0.0, 0, 0, 0, 0)).look(Seen(1.0, 0, 150, 0, 0))
    assert not wakes
    assert not wake.look(Seen(2.0, 0, 190, 0, 0))[1]
