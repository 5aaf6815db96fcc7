# SPDX-License-Identifier: BSD-3-Clause
"""The log's own rules."""

from preswapd.log import REPEAT_SECONDS, Throttle


def test_throttle_lets_one_line_a_minute_pass() -> None:
    now = 1000.0
    throttle = Throttle(lambda: now)
    assert throttle.passes()
    now += REPEAT_SECONDS / 2
    assert not throttle.passes()
    # Counted from the last line that passed, not from the last that did not.
    now += REPEAT_SECONDS / 2
    assert throttle.passes()
    now += REPEAT_SECONDS - 1
    assert not throttle.passes()
