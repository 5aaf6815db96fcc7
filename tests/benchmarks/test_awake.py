# SPDX-License-Identifier: BSD-3-Clause
"""Processors are kept awake by what makes way for everything else, and only so long."""

import os
from functools import partial
from operator import eq

import pytest

from benchmarks import awake
from preswapd.host.children import Child
from tests.running import wait_for


def place_and_class(pid: int) -> tuple[set[int], int]:
    return os.sched_getaffinity(pid), os.sched_getscheduler(pid)


def test_one_idle_process_on_each_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    spinning: dict[int, Child] = {}
    spin = awake.spin

    def noted(processor: int) -> Child:
        spinning[processor] = spin(processor)
        return spinning[processor]

    monkeypatch.setattr(awake, "spin", noted)
    with awake.kept_awake():
        assert spinning.keys() == os.sched_getaffinity(0)
        for processor, process in spinning.items():
            # It is on its way through the commands that put it there.
            idle_there = ({processor}, os.SCHED_IDLE)
            wait_for(partial(place_and_class, process.pid), partial(eq, idle_there))
            assert process.status is None
    assert {process.status for process in spinning.values()} == {-9}


def test_one_that_has_ended_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    spin = awake.spin

    def ended(processor: int) -> Child:
        process = spin(processor)
        process.kill()
        return process

    monkeypatch.setattr(awake, "spin", ended)
    with pytest.raises(RuntimeError, match="keeps the processors awake"), awake.kept_awake():
        pass
