# SPDX-License-Identifier: BSD-3-Clause
"""Random lives of a device, as in tests/preswap/test_life.py, with a store that lies now and then.

All lives of both hosts share one store and one key: it has everything that any of them has ever
set, and says what it likes of it.
"""

import random
from pathlib import Path
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from preswapd.preswap.settings import DeviceSpec
from preswapd.remote._remote import KEY_BYTES, Remote
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.running import Running
from tests.preswap.test_life import HOSTS, LIMITS, OTHERS, PAGES, PHASES, SOME_PAGES, Lives
from tests.remote.played import AWAY, DONE, ERROR, Get, Played, Store, frame

# An answer that comes at all comes sooner, on any machine; one that does not is waited for so long.
TIMEOUT_MS = 30.0
REFUSED = 3
# Of a lying store's answers.
SILENT_SHARE, LYING_SHARE = 0.02, 0.3
# Of the steps, after which all goes to disk.
TO_DISK_SHARE = 0.5


class Liar:
    """What a store answers: the truth, or anything that it can have."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lies = True
        self.random = random.Random(0)
        self.was_silent = False
        self.unsaid = b""

    def on_get(self, get: Get) -> bytes:
        late, self.unsaid = self.unsaid, b""
        answers = [self.answer(get, index) for index in range(len(get.names))]
        self.random.shuffle(answers)
        said = b"".join(answers)
        # Three in a row would have the store left alone for longer than this takes.
        self.was_silent = self.lies and not self.was_silent and self.random.random() < SILENT_SHARE
        if self.was_silent:
            self.unsaid = said
            return late
        return late + said

    def answer(self, get: Get, index: int) -> bytes:
        right = self.store.get(get.names[index])
        if not self.lies or self.random.random() > LYING_SHARE:
            return get.value(index, right)
        lie = self.random.choice(["older", "other", "changed", "cut", "miss", "away", "error"])
        if lie in ("away", "error"):
            return frame(b"v", get.ident, status=AWAY if lie == "away" else ERROR, index=index)
        if lie == "miss" or right is None:
            return get.value(index, None)
        if lie == "older":
            return get.value(index, self.random.choice(self.store.ever))
        if lie == "other":
            return get.value(index, self.random.choice(list(self.store.values())))
        at = self.random.randrange(len(right))
        changed = right[:at] + bytes([right[at] ^ 1 << self.random.randrange(8)]) + right[at + 1 :]
        return get.value(index, changed if lie == "changed" else right[:at])

    def on_set(self, ident: int, name: bytes, value: bytes) -> bytes:
        fate = self.random.choice(["kept", "lost", "refused"]) if self.lies else "kept"
        if fate == "kept":
            self.store[name] = value
        return frame(b"s", ident, status=REFUSED if fate == "refused" else DONE)


class Stored(Running):
    """An instance with a remote tier; each of its lives has a session of its own."""

    def __init__(self, tmp: Path, specs: list[DeviceSpec], liar: Liar) -> None:
        super().__init__(tmp, specs, LIMITS[-1])
        self.liar = liar
        self.played: Played | None = None

    def remote(self) -> Remote:
        # Of a start that was refused.
        if self.played is not None:
            self.hang_up()
        tier = Remote(bytes(KEY_BYTES), TIMEOUT_MS, 0, 3600)
        self.play(tier)
        return tier

    def play(self, tier: Remote) -> None:
        liar = self.liar
        self.played = Played(tier, liar.store, liar.on_get, liar.on_set)
        self.played.__enter__()

    @property
    def tier(self) -> Remote:
        assert self.played is not None
        return self.played.remote

    def hang_up(self) -> Remote:
        """The courier is gone."""
        tier = self.tier
        played, self.played = self.played, None
        assert played is not None
        played.__exit__(None, None, None)
        return tier

    def kill(self) -> None:
        super().kill()
        if self.played is not None:
            figures = self.hang_up().figures()
            StoredLives.reads += figures["remote_reads"]
            StoredLives.wrong += figures["remote_wrong"]
            StoredLives.late += figures["remote_late"]


class StoredLives(Lives):
    """What they have seen, all together."""

    reads: ClassVar[int] = 0
    wrong: ClassVar[int] = 0
    late: ClassVar[int] = 0

    def __init__(self) -> None:
        self.liar = Liar(Store())
        super().__init__()

    def new_host(self, tmp: Path, specs: list[DeviceSpec]) -> Running:
        return Stored(tmp, specs, self.liar)

    def tier(self, at: int) -> Remote:
        host = self.hosts[at]
        assert isinstance(host, Stored)
        return host.tier

    @invariant()
    def what_the_guest_reads_is_true(self) -> None:
        """As often as not from the store, as far as that has it."""
        if self.here.opened is not None and self.liar.random.random() < TO_DISK_SHARE:
            assert self.here.instance.shrink(0).complete
            super().what_the_guest_reads_is_true()
        super().what_the_guest_reads_is_true()

    # --- the store ---

    @rule(lies=st.sampled_from([True, True, False]), seed=st.integers(0, 99))
    def store_becomes(self, lies: bool, seed: int) -> None:
        self.liar.random = random.Random(seed)
        self.liar.lies = lies

    @rule()
    def store_forgets(self) -> None:
        self.liar.store.clear()

    @rule()
    def store_goes_back(self) -> None:
        """To what it had some time ago: a replica was promoted that knew no more."""
        had = dict(self.liar.store)
        for name in self.liar.random.sample(sorted(had), len(had) // 2):
            self.liar.store.pop(name, None)

    @rule(at=HOSTS)
    def courier_is_started_anew(self, at: int) -> None:
        host = self.hosts[at]
        assert isinstance(host, Stored)
        host.play(host.hang_up())

    # --- the tier ---

    @rule(at=HOSTS, enabled=st.sampled_from([True, True, False]))
    def switch(self, at: int, enabled: bool) -> None:
        self.tier(at).enabled = enabled

    @rule(at=HOSTS, most=st.sampled_from([0, 0, 0, 4 * PAGE, 40 * PAGE]))
    def bound(self, at: int, most: int) -> None:
        self.tier(at).set_max(most)
        self.tier(at).tick()

    @rule(at=HOSTS)
    def all_to_disk(self, at: int) -> None:
        """By chance alone it would be rare that all of it can be asked for."""
        self.tier(at).enabled = True
        self.hosts[at].device.promoted_below = 0
        assert self.hosts[at].instance.shrink(0).complete

    @rule(pages=SOME_PAGES)
    def write_to_the_store(self, pages: set[int]) -> None:
        self.write_to_memory(pages)
        self.all_to_disk(self.at)

    @rule()
    def write_everything_to_the_store(self) -> None:
        self.write_to_the_store(set(OTHERS))


def test_no_life_believes_a_store_that_lies() -> None:
    lives = (settings.default or settings()).max_examples // 6
    run_state_machine_as_test(
        StoredLives, settings=settings(max_examples=max(lives, 12), phases=PHASES)
    )
    seen = (StoredLives.reads, StoredLives.wrong, StoredLives.late)
    print(f"{seen[0]} pages read from the store, {seen[1]} wrong answers, {seen[2]} late")
    assert seen[0] > PAGES * lives
    assert seen[1] > PAGES
    assert seen[2] > 0
