# SPDX-License-Identifier: BSD-3-Clause
"""A guest as the policy sees it: it follows its balloon, swaps, and reads back what it uses."""

from dataclasses import dataclass, field

from preswapd.cli.park.policy import (
    MIB,
    PAGE,
    Action,
    Rules,
    Seen,
    State,
    begin,
    decide,
)

LOOK_SECONDS = 0.5


@dataclass
class ModelGuest:
    """Sizes in MiB; `hot` of it is used all the time, `kernel` cannot be swapped."""

    whole: int = 1024
    unused: int = 300
    hot: int = 20
    kernel: int = 80
    room: int = 4096  # of its swap
    speed: int = 50  # MiB a second that the balloon takes
    swap_speed: int = 50  # MiB a second that go to swap
    driver: bool = True
    trickle: int = 3  # pages a second that an idle guest reads anyway
    time: float = 0.0
    has: float = field(init=False)
    swapped: float = 0.0
    swapped_in: float = 0.0
    targets: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.has = self.whole

    def pass_time(self, target: int, seconds: float = LOOK_SECONDS) -> None:
        self.time += seconds
        self.swapped_in += self.trickle * seconds
        want = target / MIB
        if self.driver and want < self.has:
            lowest = max(want, self.kernel)
            self.has = max(lowest, self.has - self.speed * seconds)
            needed = max(0.0, self.whole - self.unused - self.has) - self.swapped
            if needed > 0:
                goes = min(needed, self.swap_speed * seconds, self.room - self.swapped)
                self.swapped += goes
                self.has += needed - goes
        elif want > self.has:
            self.has = want
        # What it uses and has no memory for goes out and comes in over and over.
        missing = self.hot + self.kernel - self.has
        if missing > 0:
            self.swapped_in += missing * MIB / PAGE * seconds

    def seen(self) -> Seen:
        room = int((self.room - self.swapped) * MIB)
        out = int(self.swapped * MIB / PAGE)
        return Seen(self.time, int(self.has * MIB), int(self.swapped_in), out, room)

    def park(self, rules: Rules, seconds: float = 3600) -> tuple[State, Action]:
        state, action = begin(rules, self.seen())
        self.targets = [state.target]
        while action in (Action.WAIT, Action.STEP):
            assert self.time < seconds, "it never ends"
            self.pass_time(state.target)
            state, action = decide(rules, state, self.seen())
            if state.target != self.targets[-1]:
                self.targets.append(state.target)
        self.pass_time(state.target)
        return state, action
