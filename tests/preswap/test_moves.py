# SPDX-License-Identifier: BSD-3-Clause
"""Random moves of a guest between two hosts, with kills, reboots and a network that is cut.

Wherever the guest looks, a page reads as its last acknowledged request left it, or fails: never
what it was before, never another guest's, never zeros that it has not written.  It fails only while
the other host is away, or for a reason; after a move by the rules there is none.
"""

import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from preswapd.errors import RefusedError
from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.files.maps import LOST, PENDING, UNKNOWN
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.moving.client import AwayError
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.network import Network
from tests.preswap.running import Running, pages_read
from tests.preswap.saves import restore, saved
from tests.preswap.test_life import OTHERS, PAGES, ZONE, small_zone
from tests.preswap.zones import with_zone

ZEROS = bytes(PAGE)
SIZE = PAGES * PAGE
PAGE_NUMBERS = st.integers(0, PAGES - 1)
SOME_PAGES = st.sets(PAGE_NUMBERS, min_size=1, max_size=8)
HOSTS = st.sampled_from([0, 0, 1])
LIMITS = [0, 200_000, 8_000_000]
STRANGERS = 7000


class Moves(RuleBasedStateMachine):
    """`truth`: what the guest's pages are.  `excused`: those that may fail, and of the zone may be
    anything that is not the guest's past.  `linked`: the other host was announced what is here."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(with_zone(small_zone))
        self.stack.enter_context(patch("preswapd.preswap.writeback.room.PAUSE_SECONDS", 0.0))
        self.network = Network()
        self.stack.enter_context(self.network.up())
        self.hosts = [self.host(name) for name in ("a", "b")]
        self.at = 0
        self.truth: dict[int, bytes] = {}
        self.past: dict[int, set[bytes]] = {page: set() for page in range(PAGES)}
        self.excused = set(range(PAGES))
        # Where the guest may go: the other host has a device that knows of this one.
        self.is_announced = False
        # Where the guest came from without having changed anything since, and may go back to.
        self.may_resume = False

    def host(self, name: str) -> Running:
        tmp = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="preswapd-test-"))
        running = Running(Path(tmp), [DeviceSpec("g1", SIZE)], LIMITS[-1])
        self.network.hosts[name] = self.stack.enter_context(running)
        return running

    @initialize()
    def begin(self) -> None:
        for running in self.hosts:
            running.open(known=False)
        self.write(set(range(PAGES)), 50, 0)

    def teardown(self) -> None:
        self.stack.close()

    @property
    def here(self) -> Running:
        return self.hosts[self.at]

    @property
    def there(self) -> Running:
        return self.hosts[1 - self.at]

    def name(self, at: int) -> str:
        return "ab"[at]

    def excuse(self, pages: set[int]) -> None:
        self.excused |= pages

    # --- the guest ---

    def knows(self, page: int, content: bytes) -> None:
        if page in self.truth and self.truth[page] != content:
            self.past[page].add(self.truth[page])
        self.past[page].discard(content)
        self.truth[page] = content
        self.excused.discard(page)

    def tried(self, page: int, content: bytes, request: object) -> bool:
        """An error changes nothing."""
        assert callable(request)
        try:
            request()
        except OSError:
            assert self.may_fail
            return False
        self.knows(page, content)
        self.may_resume = False
        return True

    @property
    def may_fail(self) -> bool:
        """A change does where the device was taken from here, or the source does not answer."""
        device = self.here.device
        return device.guest == "gone" or (
            device.guest == "coming" and (self.is_cut or self.source_gone_elsewhere)
        )

    @property
    def is_cut(self) -> bool:
        return self.there.opened is None or self.name(1 - self.at) in self.network.cut_off

    @property
    def source_gone_elsewhere(self) -> bool:
        """It serves another arrival: this one was made anew after it had been taken."""
        sidecar = self.there.instance.served["g1"].record.sidecar
        mine = self.here.instance.served["g1"].record.sidecar
        return sidecar.moved not in (0, mine.arrival)

    @rule(pages=SOME_PAGES, tag=st.integers(0, 49), flags=st.sampled_from([0, 0, FLAG_FUA]))
    def write(self, pages: set[int], tag: int, flags: int) -> None:
        connection = self.here.connect()
        for page in sorted(pages):
            content = page_of(100 * page + tag)
            self.tried(
                page, content, lambda p=page, c=content: connection.pwrite(c, p * PAGE, flags)
            )

    @rule(page=PAGE_NUMBERS, tag=st.integers(0, 49), flags=st.sampled_from([0, FLAG_FUA]))
    def write_a_part(self, page: int, tag: int, flags: int) -> None:
        part = page_of(100 * page + tag)[:512]
        whole = self.truth[page][:1024] + part + self.truth[page][1536:]
        try:
            self.here.connect().pwrite(part, page * PAGE + 1024, flags)
        except OSError:
            assert self.may_fail or page in self.excused or self.is_cut
            return
        self.may_resume = False
        if page in ZONE and page in self.excused:
            whole = pages_read(self.here.connect())[page] or b""
        # Else what was changed was what it must be.
        self.knows(page, whole)

    @rule(page=PAGE_NUMBERS, count=st.integers(1, 6), zero=st.booleans())
    def clear(self, page: int, count: int, zero: bool) -> None:
        pages = range(page, min(PAGES, page + count))
        connection = self.here.connect()
        try:
            (connection.zero if zero else connection.trim)(len(pages) * PAGE, page * PAGE)
        except OSError:
            assert self.may_fail
            return
        self.may_resume = False
        for cleared in pages:
            self.knows(cleared, ZEROS)

    # --- moves ---

    def announce(self, to: int) -> bool:
        source = self.network.uri(self.name(1 - to))
        try:
            self.hosts[to].instance.create("g1", SIZE, source=source, force=True)
        except RefusedError:
            return False
        return True

    @precondition(
        lambda self: (
            self.there.opened is not None and self.name(self.at) not in self.network.cut_off
        )
    )
    @rule()
    def announce_here_to_there(self) -> None:
        is_whole = self.here.device.guest == "here" and not self.sidecar(self.at).source
        assert self.announce(1 - self.at) == is_whole
        if is_whole:
            self.is_announced, self.may_resume = True, False

    def sidecar(self, at: int) -> Sidecar:
        return self.hosts[at].instance.served["g1"].record.sidecar

    @precondition(lambda self: self.there.opened is not None)
    @rule(pages=SOME_PAGES)
    def probe_there(self, pages: set[int]) -> None:
        """QEMU looks at the disk before its guest comes, or an operator does."""
        connection = self.there.connect()
        for page in pages:
            with suppress(OSError):
                connection.pread(bytearray(PAGE), page * PAGE)

    @precondition(lambda self: self.there.opened is not None)
    @rule()
    def go(self) -> None:
        """Where the device there was not announced, nothing is right but errors."""
        linked = self.is_linked()
        if not linked:
            if not self.knows_nothing(self.there):
                return
            self.excuse(set(range(PAGES)))
            if self.there.device.guest != "gone":
                for page in ZONE:
                    self.past[page].clear()
        self.at = 1 - self.at
        self.may_resume = linked
        self.is_announced = False

    @precondition(lambda self: self.there.opened is not None)
    @rule()
    def go_as_a_save(self) -> None:
        """The guest is saved with its swap, and restored there; what is left here is dropped."""
        is_whole = self.here.device.guest == "here" and not self.sidecar(self.at).source
        try:
            save = saved(self.here)
        except RefusedError:
            assert not is_whole
            return
        assert is_whole
        if self.sidecar(1 - self.at).source:
            with pytest.raises(RefusedError):
                restore(self.there, save)
            self.there.instance.abandon("g1")
        self.there.instance.swapoff("g1")
        restore(self.there, save)
        self.here.instance.swapoff("g1")
        self.at = 1 - self.at
        self.is_announced = self.may_resume = False

    def knows_nothing(self, running: Running) -> bool:
        """Else no rule can notice that it is another guest's device, or has this one's past."""
        states = running.device.state_bytes()
        others = {states[page] for page in OTHERS}
        return running.device.guest != "here" or others <= {UNKNOWN, PENDING, LOST}

    def is_linked(self) -> bool:
        """What is there now has the pages of what is here now."""
        mine, theirs = self.sidecar(self.at), self.sidecar(1 - self.at)
        return bool(
            self.is_announced
            and theirs.source
            and theirs.source == mine.life
            and not mine.moved
            and self.there.device.guest == "coming"
        )

    @precondition(lambda self: self.may_resume and self.there.opened is not None)
    @rule()
    def resume(self) -> None:
        """The migration failed, and nothing was changed."""
        self.at = 1 - self.at
        self.may_resume = False
        self.is_announced = self.here.device.guest == "here"

    @rule(at=HOSTS)
    def pull(self, at: int) -> None:
        """A turn of the thread, where one would run."""
        running = self.hosts[at]
        if running.opened is None or "g1" not in running.instance.moves.pulls:
            return
        pull = running.instance.moves.pulls["g1"]
        if running.device.guest != "here" or pull.is_over:
            return
        try:
            pull.turn()
        except (AwayError, OSError):
            # Cut off, or the source does not give its pages any more.
            return

    @precondition(lambda self: not self.is_cut)
    @rule()
    def pull_to_the_end(self) -> None:
        for _ in range(3):
            self.pull(self.at)

    @rule(at=HOSTS)
    def abandon(self, at: int) -> None:
        running = self.hosts[at]
        if running.opened is None or not self.sidecar(at).source:
            return
        running.instance.abandon("g1")
        if at == self.at:
            self.excuse(set(range(PAGES)))

    @rule(host=st.sampled_from("ab"), cut=st.booleans())
    def cut(self, host: str, cut: bool) -> None:
        if cut:
            self.network.cut_off.add(host)
        else:
            self.network.cut_off.discard(host)

    # --- the operator, and other guests ---

    @rule(limit=st.sampled_from(LIMITS))
    def set_limit(self, limit: int) -> None:
        self.here.instance.host.limit = limit

    @rule(at=HOSTS)
    def shrink(self, at: int) -> None:
        if self.hosts[at].opened is not None:
            assert self.hosts[at].instance.shrink(0).complete

    @rule(at=HOSTS)
    def sync(self, at: int) -> None:
        if self.hosts[at].opened is not None:
            assert self.hosts[at].instance.begin_sync().wait().complete

    @rule(at=HOSTS)
    def maintain(self, at: int) -> None:
        if self.hosts[at].opened is not None:
            self.hosts[at].instance.maintain()
            self.hosts[at].fitted()

    @rule(at=HOSTS, how=st.sampled_from(["swapoff", "mkswap", "anew"]))
    def forget(self, at: int, how: str) -> None:
        running = self.hosts[at]
        if running.opened is None:
            return
        try:
            if how == "anew":
                running.instance.remove("g1", force=True)
                running.instance.create("g1", SIZE)
            else:
                getattr(running.instance, how)("g1", **({"force": True} if how == "mkswap" else {}))
        except RefusedError:
            assert self.sidecar(at).source
            return
        # Of here the guest's pages went, or those that it has still to fetch.
        if at == self.at or self.sidecar(self.at).source:
            self.excuse(set(range(PAGES)))
        self.is_announced = self.may_resume = False

    @rule(pages=SOME_PAGES)
    def another_guest_there(self, pages: set[int]) -> None:
        """On a device that was released: not one that waits for this guest, or was taken."""
        if self.there.opened is None or self.there.device.guest != "here":
            return
        sidecar = self.sidecar(1 - self.at)
        if sidecar.source or sidecar.life:
            return
        connection = self.there.connect()
        for page in pages:
            connection.pwrite(page_of(STRANGERS + page), page * PAGE)

    # --- ends and starts ---

    @rule(at=HOSTS, clean=st.booleans(), reboot=st.booleans())
    def end(self, at: int, clean: bool, reboot: bool) -> None:
        running = self.hosts[at]
        if running.opened is None:
            return
        guest, states = running.device.guest, b""
        if self.here.opened is not None:
            states = self.here.device.state_bytes()
        if clean:
            running.stop()
        else:
            running.kill()
        if reboot:
            running.reboot()
            self.may_resume = False
            if at == self.at:
                # The zone is a plain file, and here where its guest is.
                self.excuse(set(range(PAGES)) if guest == "gone" else set(OTHERS))
            else:
                self.excuse({page for page in range(PAGES) if states[page] == PENDING})
        if at == self.at:
            running.open(known=False)

    @precondition(lambda self: self.there.opened is None)
    @rule()
    def start_there(self) -> None:
        self.there.open(known=False)

    # --- what holds always ---

    @invariant()
    def what_the_guest_reads_is_true(self) -> None:
        if self.here.opened is None:
            return
        for running in self.hosts:
            if running.opened is not None:
                check_coherence(running.instance)
        pending_may_fail = self.is_cut
        states = self.here.device.state_bytes()
        for page, found in enumerate(pages_read(self.here.connect())):
            allowed_to_fail = (
                page in self.excused
                or self.here.device.guest == "gone"
                or (states[page] == PENDING and pending_may_fail)
            )
            if found is None:
                assert allowed_to_fail, f"page {page} fails without a reason"
            elif page in ZONE and page in self.excused:
                assert found not in self.past[page] - {ZEROS}, (
                    f"page {page} of the zone is the guest's past"
                )
            else:
                assert found == self.truth.get(page), f"page {page}"

    @invariant()
    def nothing_is_kept_before_its_guest_is_here(self) -> None:
        for running in self.hosts:
            if running.opened is not None and running.device.guest == "coming":
                assert set(running.device.state_bytes()) == {PENDING}


TestMoves = Moves.TestCase
PHASES = [phase for phase in Phase if phase is not Phase.shrink]
TestMoves.settings = settings(
    max_examples=(settings.default or settings()).max_examples // 3, phases=PHASES
)
