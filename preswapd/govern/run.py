# SPDX-License-Identifier: BSD-3-Clause
"""The governor at work: look, decide, set, and wait for the next tick.

What it sets lasts without it, so its end, whenever it comes, changes nothing.
"""

import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from preswapd.api.governor import Governed, GovernorStatus, Made
from preswapd.api.kinds import OFF
from preswapd.errors import PartialError, RefusedError
from preswapd.govern.config import Config
from preswapd.govern.policy import (
    PRESSURE,
    SHORT_TICK_SECONDS,
    TAKING,
    TICK_SECONDS,
    Decision,
    Readings,
    Reason,
    State,
    decide,
    is_near,
    is_too_much,
    room_of,
    tick_seconds,
)
from preswapd.govern.readings import Host, Instance, Instances
from preswapd.govern.shares import MIB, Pool, bounds
from preswapd.govern.telling import sentence, why
from preswapd.log import INFO, NOTICE, WARNING, Log
from preswapd.version import VERSION

LAST_DECISIONS = 50
# Where nothing stirs, instances are left in peace for so long: 32 of them may cost half a percent
# of a processor.  While pages are on their way to disk, asking more often tells nothing.
PEACE_SECONDS, NEAR_PEACE_SECONDS, WAY_SECONDS = 10.0, 5.0, 0.5
STIR = 64 * MIB
HELD_BY = "lock"
COMPLAINTS = (Reason.BEHIND, Reason.FLOORS)


class Governor:
    """Everything of one run; `status` may be asked from other threads."""

    def __init__(
        self, config: Config, host: Host, instances: Instances, log: Log, *, dry_run: bool = False
    ) -> None:
        self.config = config
        self.host = host
        self.instances = instances
        self.log = log
        self.dry_run = dry_run
        self.started = time.time()
        self.state = State()
        self.seen: Readings | None = None
        self.made: deque[Made] = deque(maxlen=LAST_DECISIONS)
        self.counts = {"decisions_made": 0, "taken": 0}
        self.absent: dict[str, str] = {}
        # What a dry run would have set.
        self.assumed: dict[str, int] = {}

    # --- one tick ---

    def turn(self) -> float:
        """Looks, and does what is to be done; in how many seconds the next one is due."""
        now, available = time.monotonic(), self.host.available()
        pressure = self.host.pressure(now)
        if self.is_due(now, available, pressure):
            self.govern(now, available, pressure)
        return tick_seconds(self.config.rules, available)

    def is_due(self, now: float, available: int, pressure: float | None) -> bool:
        """Whether the instances are to be asked too, which costs them something."""
        if self.seen is None:
            return True
        since = now - self.seen.time
        rules = self.config.rules
        near = is_near(rules, available)
        # If the pools take what they took: at least so much is short, where pages go to disk.  Once
        # that is set, it is no news any more.
        room = room_of(rules, self.seen, available)
        if available < rules.reserve and is_too_much(rules, self.state, self.seen, room):
            return since >= SHORT_TICK_SECONDS
        if self.seen.excess:
            return since >= WAY_SECONDS
        if near and (pressure or 0) > PRESSURE and now >= self.state.held_until:
            return since >= SHORT_TICK_SECONDS
        worth = STIR if near else rules.reserve // 4
        stirs = abs(available - self.seen.available) > worth
        wants = any(pool.wants for pool in self.seen.pools.values())
        if stirs or wants or not self.seen.pools:
            seconds = TICK_SECONDS
        else:
            seconds = NEAR_PEACE_SECONDS if near else PEACE_SECONDS
        return since >= seconds - SHORT_TICK_SECONDS / 2

    def govern(self, now: float, available: int, pressure: float | None) -> None:
        found = self.instances.look()
        self.tell_absent()
        # What was available when they answered: while one that hangs is waited for, a pool takes
        # 100 MiB more, and other programs would be thought to have them.
        answers = [one.answer.available for one in found.values() if one.answer is not None]
        available = sum(answers) // len(answers) if answers else available
        pools = {name: self.known(name, one) for name, one in found.items()}
        self.seen = Readings(now, available, pressure, pools)
        self.state, decisions = decide(self.config.rules, self.state, self.seen)
        for decision in decisions:
            self.carry_out(decision, found)

    def known(self, name: str, instance: Instance) -> Pool:
        assert instance.pool is not None
        if not self.dry_run:
            return instance.pool
        return replace(instance.pool, governed=self.assumed.get(name, instance.pool.governed))

    def carry_out(self, decision: Decision, found: Mapping[str, Instance]) -> None:
        would = "would be done: " if self.dry_run else ""
        level = WARNING if decision.reason in COMPLAINTS else NOTICE
        self.log(level, f"{would}{sentence(decision)}")
        self.counts["decisions_made"] += 1
        self.counts["taken"] += decision.reason in TAKING
        self.made.append(as_made(decision))
        if self.dry_run:
            self.assumed.update(decision.limits)
            return
        for complaint in self.instances.govern(decision.limits, found):
            self.log(WARNING, f"a limit was not set: {complaint}")
        assert self.seen is not None
        pools = {
            name: replace(pool, governed=decision.limits.get(name, pool.governed))
            for name, pool in self.seen.pools.items()
        }
        self.seen = replace(self.seen, pools=pools)

    def tell_absent(self) -> None:
        """Once of each, and again when it is back."""
        absent = self.instances.absent()
        for name, reason in absent.items():
            if self.absent.get(name) != reason:
                self.log(WARNING, f"{name} is not governed: {reason}")
        for name in self.absent.keys() - absent.keys():
            self.log(INFO, f"{name} is governed again, or gone")
        self.absent = absent

    # --- what it says of itself ---

    def status(self) -> GovernorStatus:
        seen, rules = self.seen, self.config.rules
        pools = {} if seen is None else dict(seen.pools)
        used = sum(pool.used for pool in pools.values())
        available = 0 if seen is None else seen.available
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "start_time": round(self.started, 3),
            "dry_run": self.dry_run,
            "files": [str(path) for path in self.config.files],
            "reserve": rules.reserve,
            "available": available,
            "pressure": None if seen is None else seen.pressure,
            "used": used,
            "room": max(0, used + available - rules.reserve),
            "total": self.state.total or 0,
            "decisions_made": self.counts["decisions_made"],
            "taken": self.counts["taken"],
            "instances": {name: self.governed(name, pools) for name in sorted(pools)},
            "absent": dict(self.absent),
            "decisions": list(self.made),
        }

    def governed(self, name: str, pools: Mapping[str, Pool]) -> Governed:
        pool, share = pools[name], self.config.rules.share(name)
        floor, cap = bounds(share, pool)
        return {
            "used": pool.used,
            "idle": pool.idle,
            "limit": pool.governed,
            "pool_limit": pool.pool_limit,
            "floor": floor,
            "cap": cap,
            "weight": share.weight,
            "excess": pool.excess,
            "why": why(name, self.config.rules, pools, self.state.total or 0),
        }


def as_made(decision: Decision) -> Made:
    return {
        "time": round(time.time(), 3),
        "reason": decision.reason.value,
        "sentence": sentence(decision),
        "available": decision.available,
        "reserve": decision.reserve,
        "pressure": decision.pressure,
        "used": decision.used,
        "room": decision.room,
        "total": decision.total,
        "excess": decision.excess,
        "limits": dict(decision.limits),
        "before": dict(decision.before),
    }


def run(governor: Governor, is_over: Callable[[float], bool]) -> None:
    """Tick by tick; `is_over` waits for so many seconds, or until the end."""
    while True:
        begun = time.monotonic()
        seconds = governor.turn()
        if is_over(max(0.0, begun + seconds - time.monotonic())):
            return


def release(instances: Instances, log: Log) -> None:
    """Ends all limits of a governor, so that operators' alone hold."""
    found = instances.look()
    governed = {
        name: one for name, one in found.items() if one.pool and one.pool.governed is not None
    }
    failed: Sequence[str] = instances.govern(dict.fromkeys(governed, OFF), found)
    for name in sorted(governed):
        log(INFO, f"{name}: the governor's limit is off")
    away = [f"{name}: {reason}" for name, reason in instances.absent().items()]
    if failed or away:
        raise PartialError(
            f"not everywhere: {'; '.join(sorted({*failed, *away}))}; run it again when they answer"
        )


def lock(runtime_dir: Path) -> int:
    """One governor for a host; the lock ends with the process."""
    path = runtime_dir / HELD_BY
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RefusedError(
            f"a governor runs already ({runtime_dir} is in use), and there is one for a host:"
            " systemctl stop preswapd-governor, or end that process"
        ) from None
    return descriptor
