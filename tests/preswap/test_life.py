# SPDX-License-Identifier: BSD-3-Clause
"""Random lives of a device: one guest, two hosts, stops, kills, reboots, hands on the files.

Wherever the guest looks, a page reads as its last acknowledged request left it, or fails; it fails
only with an excuse, and its zone never.  A device is refused only after hands on the files, and
served once they are as they were.  Power cuts are not in here, nor what no rule can notice: a file
system set back as a whole, changes in place while a killed server is down, a guest that goes back
to a host that still has its past.
"""

import os
import shutil
import tempfile
from contextlib import ExitStack
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
from preswapd.preswap.settings import DeviceSpec
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import Running, pages_read
from tests.preswap.zones import with_zone

PAGES = 24
ZEROS = bytes(PAGE)
LIMITS = [0, 200_000, 8_000_000]


def small_zone(pages: int) -> tuple[range, ...]:
    """As large devices have it: at both ends, and between."""
    return range(2), range(9, 10), range(pages - 2, pages)


ZONE = {page for part in small_zone(PAGES) for page in part}
OTHERS = sorted(set(range(PAGES)) - ZONE)
PAGE_NUMBERS = st.sampled_from(OTHERS)
SOME_PAGES = st.sets(PAGE_NUMBERS, min_size=1, max_size=8)
HOSTS = st.sampled_from([0, 0, 1])
FLAGS = st.sampled_from([0, 0, FLAG_FUA])


class Lives(RuleBasedStateMachine):
    """`truth`: what the guest's pages are.  `excused`: those that may fail.  `is_new[host]`:
    nothing of an earlier stay of the guest is there."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(with_zone(small_zone))
        self.stack.enter_context(patch("preswapd.preswap.writeback.room.PAUSE_SECONDS", 0.0))
        self.hosts = [self.host() for _ in range(2)]
        self.at = 0
        self.is_new = [False, True]
        # The disk file was changed behind the server's back, and that was noticed: only an operator
        # who does not know it would have the file accepted.
        self.is_harmed = [False, False]
        self.truth: dict[int, bytes] = {}
        self.zone: dict[int, bytes] = {}
        self.excused = set(OTHERS)

    def host(self) -> Running:
        tmp = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="preswapd-test-"))
        specs = [DeviceSpec("g1", PAGES * PAGE), DeviceSpec("g2", PAGES * PAGE)]
        return self.stack.enter_context(self.new_host(Path(tmp), specs))

    def new_host(self, tmp: Path, specs: list[DeviceSpec]) -> Running:
        return Running(tmp, specs, LIMITS[-1])

    @initialize()
    def begin(self) -> None:
        for running in self.hosts:
            running.open(known=False)
            other = running.instance.devices["g2"].connect()
            for page in OTHERS:
                other.pwrite(page_of(1000 + page), page * PAGE, FLAG_FUA)
        self.look_at_zone()
        self.write_everything(0)

    def teardown(self) -> None:
        self.stack.close()

    # --- where things are ---

    @property
    def here(self) -> Running:
        return self.hosts[self.at]

    def look_at_zone(self) -> None:
        """At a new place it holds what it holds, and that without an error."""
        found = pages_read(self.here.connect())
        self.zone = {page: found[page] or b"" for page in ZONE}

    def excuse(self, pages: set[int]) -> None:
        self.excused |= pages - ZONE

    def excuse_on_disk(self, at: int) -> None:
        """After hands on its disk file: those of the guest's pages that are not in memory."""
        if at == self.at:
            self.excuse(set(OTHERS))

    # --- the guest ---

    # Most of what happens is the guest at work: what nobody has written cannot be lost.
    @rule(pages=SOME_PAGES, tag=st.integers(0, 99), flags=FLAGS)
    def write(self, pages: set[int], tag: int, flags: int) -> None:
        connection = self.here.connect()
        for page in pages:
            content = page_of(100 * page + tag)
            connection.pwrite(content, page * PAGE, flags)
            self.knows(page, content)

    @rule(flags=FLAGS)
    def write_everything(self, flags: int) -> None:
        self.write(set(OTHERS), 100, flags)

    @rule(pages=SOME_PAGES)
    def write_to_disk(self, pages: set[int]) -> None:
        self.write(pages, 101, FLAG_FUA)

    @rule(pages=SOME_PAGES)
    def write_to_memory(self, pages: set[int]) -> None:
        self.here.instance.host.limit = LIMITS[-1]
        self.write(pages, 102, 0)

    @rule(page=PAGE_NUMBERS, count=st.integers(1, 6), zero=st.booleans(), flags=FLAGS)
    def clear(self, page: int, count: int, zero: bool, flags: int) -> None:
        pages = range(page, min(PAGES, page + count))
        connection = self.here.connect()
        (connection.zero if zero else connection.trim)(len(pages) * PAGE, page * PAGE, flags)
        for cleared in pages:
            if cleared in ZONE:
                self.zone[cleared] = ZEROS
            else:
                self.knows(cleared, ZEROS)

    @rule(page=st.sampled_from(sorted(ZONE)), tag=st.integers(0, 99), flags=FLAGS)
    def write_in_the_zone(self, page: int, tag: int, flags: int) -> None:
        self.here.connect().pwrite(page_of(tag), page * PAGE, flags)
        self.zone[page] = page_of(tag)

    def knows(self, page: int, content: bytes) -> None:
        self.truth[page] = content
        self.excused.discard(page)

    @rule()
    def flush(self) -> None:
        self.here.connect().flush()

    @precondition(lambda self: self.is_new[1 - self.at])
    @rule()
    def move(self) -> None:
        """Without a word to anybody: at a device that knows nothing of it."""
        self.at = 1 - self.at
        self.is_new[self.at] = False
        self.excuse(set(OTHERS))
        self.look_at_zone()

    # --- the operator ---

    @rule(limit=st.sampled_from(LIMITS))
    def set_limit(self, limit: int) -> None:
        self.here.instance.host.limit = limit

    @rule(pages=st.sampled_from([0, 3]))
    def shrink(self, pages: int) -> None:
        assert self.here.instance.shrink(pages).complete

    @rule()
    def sync(self) -> None:
        assert self.here.instance.begin_sync().wait().complete

    @rule()
    def maintain(self) -> None:
        self.here.instance.maintain()
        self.here.fitted()

    @rule(at=HOSTS)
    def look_after_memory(self, at: int) -> None:
        """Room and idle writeback; a look that moves nothing leaves a clean device clean."""
        instance, device = self.hosts[at].instance, self.hosts[at].device
        policy = instance.sysctl.policy
        policy.writeback_room, policy.writeback_idle, policy.writeback_rate = 0.5, 0.0, None
        was_marked, before = device.is_marked, device.stats()["written_back_pages"]
        instance.room.turn(0)
        instance.idle.found_none_at = 0.0
        instance.idle.looked_at -= 1.0  # a second ago
        instance.idle.turn()
        has_moved = device.stats()["written_back_pages"] > before
        assert device.is_marked == (was_marked or has_moved)

    @rule(at=HOSTS, weight=st.sampled_from([None, 0, 2000]))
    def come_back(self, at: int, weight: int | None) -> None:
        """What is read from disk, from now on: every page is, after each step."""
        self.hosts[at].device.promoted_below = weight

    @rule(at=HOSTS, how=st.sampled_from(["swapoff", "mkswap", "anew", "discard"]))
    def forget(self, at: int, how: str) -> None:
        running = self.hosts[at]
        if how == "discard":
            running.kill()
            running.open(known=False, discard=True)
        elif how == "anew":
            running.instance.remove("g1", force=True)
            running.instance.create("g1", PAGES * PAGE)
        else:
            getattr(running.instance, how)("g1", **({"force": True} if how == "mkswap" else {}))
        if at == self.at:
            self.excuse(set(OTHERS))
            self.look_at_zone()
        else:
            self.is_new[at] = True

    # --- ends and starts ---

    def end(self, at: int, clean: bool, reboot: bool) -> bool:
        """Whether the saved map holds then."""
        running = self.hosts[at]
        device = running.device
        in_memory = {page for page, bit in enumerate(device.preswap_map) if bit}
        is_saved = clean or not device.is_marked
        if clean:
            running.stop()
        else:
            running.kill()
        if reboot:
            running.reboot()
            if at == self.at:
                self.excuse(in_memory if is_saved else set(OTHERS))
        return is_saved

    @rule(at=HOSTS, clean=st.booleans(), reboot=st.booleans())
    def start_again(self, at: int, clean: bool, reboot: bool) -> None:
        self.end(at, clean, reboot)
        self.hosts[at].open(known=False)

    @rule(pages=SOME_PAGES, sync=st.booleans())
    def change_little_and_reboot(self, pages: set[int], sync: bool) -> None:
        """What was saved holds no more: by chance alone this would be rare."""
        if sync:
            self.sync()
        else:
            self.start_again(self.at, True, False)
        self.write_to_memory(pages)
        self.start_again(self.at, False, True)

    # --- hands on the files of a server that is down ---

    def all_refused(self, at: int) -> None:
        with pytest.raises(RefusedError, match=r"is the disk file of"):
            self.hosts[at].open(known=False)

    def refused_alone(self, at: int) -> None:
        """The other one is served, and then the server is killed."""
        running = self.hosts[at]
        running.open(known=False)
        assert set(running.instance.devices) == {"g2"}
        assert "is not the disk file that" in running.instance.refused["g1"].why
        self.others_have_their_own()
        running.kill()

    @rule(at=HOSTS, clean=st.booleans(), reboot=st.booleans())
    def swap_disk_files(self, at: int, clean: bool, reboot: bool) -> None:
        self.end(at, clean, reboot)
        paths = [self.hosts[at].paths.disk_file(name) for name in ("g1", "g2")]
        exchange(*paths)
        self.all_refused(at)
        exchange(*paths)
        # A file that is renamed has another ctime, too.
        self.excuse_on_disk(at)
        self.hosts[at].open(known=False)

    @rule(at=HOSTS, clean=st.booleans(), reboot=st.booleans())
    def put_a_copy_in_its_place(self, at: int, clean: bool, reboot: bool) -> None:
        self.end(at, clean, reboot)
        path = self.hosts[at].paths.disk_file("g1")
        copy = path.with_name("copy")
        shutil.copy2(path, copy)
        exchange(path, copy)
        self.refused_alone(at)
        exchange(path, copy)
        copy.unlink()
        self.excuse_on_disk(at)
        self.hosts[at].open(known=False)

    @rule(at=HOSTS, clean=st.booleans(), reboot=st.booleans())
    def write_over_it_in_place(self, at: int, clean: bool, reboot: bool) -> None:
        """After a kill only where the host is rebooted since: else no rule can notice."""
        is_saved = self.end(at, clean, reboot or not clean)
        assert is_saved or not clean
        with self.hosts[at].paths.disk_file("g1").open("r+b") as file:
            for page in OTHERS:
                file.seek(page * PAGE)
                file.write(page_of(5000))
        self.is_harmed[at] = True
        self.excuse_on_disk(at)
        self.hosts[at].open(known=False)

    @rule(at=HOSTS, clean=st.booleans(), reboot=st.booleans(), page=PAGE_NUMBERS)
    def cut_and_lengthen(self, at: int, clean: bool, reboot: bool, page: int) -> None:
        self.end(at, clean, reboot)
        path = self.hosts[at].paths.disk_file("g1")
        os.truncate(path, page * PAGE)
        os.truncate(path, PAGES * PAGE)
        self.is_harmed[at] = True
        if at == self.at:
            self.zone |= {cut: ZEROS for cut in ZONE if cut >= page}
        self.excuse_on_disk(at)
        self.hosts[at].open(known=False)

    @rule(at=HOSTS, clean=st.booleans(), reboot=st.booleans(), accept=st.booleans())
    def touch(self, at: int, clean: bool, reboot: bool, accept: bool) -> None:
        accept = accept and not self.is_harmed[at]
        self.end(at, clean, reboot)
        self.hosts[at].paths.disk_file("g1").touch()
        if not accept:
            self.excuse_on_disk(at)
        self.hosts[at].open(known=False, accept_moved=accept)

    # --- what holds always ---

    @invariant()
    def what_the_guest_reads_is_true(self) -> None:
        if self.here.opened is None:
            return
        for at, running in enumerate(self.hosts):
            # From the first change on nobody can have the earlier state accepted.
            self.is_harmed[at] &= not running.device.is_marked
        check_coherence(self.here.instance)
        for page, found in enumerate(pages_read(self.here.connect())):
            if page in ZONE:
                assert found == self.zone[page], f"page {page} of the zone"
            elif found is None:
                assert page in self.excused, f"page {page} fails without a reason"
            else:
                assert found == self.truth.get(page), f"page {page}"

    @invariant()
    def others_have_their_own(self) -> None:
        for running in self.hosts:
            if running.opened is None:
                continue
            found = pages_read(running.instance.devices["g2"].connect())
            assert all(found[page] in (page_of(1000 + page), None) for page in OTHERS)


def exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


TestLives = Lives.TestCase
# Finding a shorter example would take longer than a test may.
PHASES = [phase for phase in Phase if phase is not Phase.shrink]
TestLives.settings = settings(
    max_examples=(settings.default or settings()).max_examples // 3, phases=PHASES
)
