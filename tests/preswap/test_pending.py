# SPDX-License-Identifier: BSD-3-Clause
"""PENDING pages: what is asked of the other host, what is kept, and who is served."""

import errno
import os
import threading
from collections.abc import Iterator

import pytest

from preswapd.preswap.device._device import FLAG_FUA, Device, transfer_buffers
from preswapd.preswap.files.maps import DISK, HOLE, LOST, PENDING, TMEM, UNKNOWN
from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import Running, read

PAGES = 256
OTHER_HOST = {page: page_of(page) for page in range(PAGES)}
# A device of a MiB has page 0 alone as its zone.
PAGE_IN_ZONE = 0


class Source:
    """What the other host answers; `meanwhile` comes between that and what is made of it."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.asked: list[tuple[int, int]] = []
        self.error = 0
        self.taken = 0
        device.on_fetch = self.fetch
        device.on_take = self.take

    def fetch(self, first: int, pages: int) -> bytes:
        self.asked.append((first, pages))
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        content = b"".join(OTHER_HOST[page] for page in range(first, first + pages))
        self.meanwhile()
        return content

    def meanwhile(self) -> None:
        return

    def take(self) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.taken += 1


@pytest.fixture
def source(running: Running) -> Iterator[Source]:
    """Of g1, all of whose pages are PENDING, and whose guest is coming."""
    device = running.open().devices["g1"]
    assert zone(PAGES) == (range(1),)
    device.park(1000)
    device.renew(pending=True)
    device.set_guest("coming")
    device.resume()
    device.note_marked()
    found = Source(device)
    yield found
    check_coherence(running.instance)


def fails(request: object, number: int = errno.EIO) -> None:
    assert callable(request)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        request()
    assert error.value.errno == number


def state(device: Device, page: int) -> int:
    return device.state_bytes(page, 1)[0]


def test_nothing_is_kept_while_its_guest_is_coming(running: Running, source: Source) -> None:
    guest = running.connect()
    for _ in range(2):
        assert read(guest, 3 * PAGE, 4 * PAGE) == b"".join(OTHER_HOST[page] for page in range(3, 7))
        assert read(guest, 8 * PAGE + 5, 100) == OTHER_HOST[8][5:105]
        assert read(guest, 0, PAGE) == OTHER_HOST[0]
    assert source.asked == [(3, 4), (8, 1), (0, 1)] * 2
    assert source.taken == 0
    assert set(running.device.state_bytes()) == {PENDING}


CHANGES = {
    "write": lambda guest: guest.pwrite(page_of(900), 9 * PAGE),
    "FUA": lambda guest: guest.pwrite(page_of(900), 9 * PAGE, FLAG_FUA),
    "long": lambda guest: guest.pwrite(page_of(900) * 8, 9 * PAGE),
    "part": lambda guest: guest.pwrite(b"x" * 100, 9 * PAGE + 7),
    "trim": lambda guest: guest.trim(PAGE, 9 * PAGE),
    "zeroes": lambda guest: guest.zero(PAGE, 9 * PAGE),
    "zone": lambda guest: guest.pwrite(page_of(900), 0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_first_change_takes_it_once(running: Running, source: Source, name: str) -> None:
    guest = running.connect()
    source.error = errno.EHOSTUNREACH
    fails(lambda: CHANGES[name](guest))
    assert running.device.guest == "coming"
    assert set(running.device.state_bytes()) == {PENDING}
    source.error = 0
    for _ in range(2):
        CHANGES[name](guest)
    assert (source.taken, running.device.guest) == (1, "here")


def test_what_is_read_after_that_is_kept(running: Running, source: Source) -> None:
    running.device.set_guest("here")
    guest = running.connect()
    for _ in range(2):
        assert read(guest, 0, 12 * PAGE) == b"".join(OTHER_HOST[page] for page in range(12))
    assert source.asked == [(0, 12)]
    assert running.device.state_bytes(0, 13) == bytes([DISK] + 11 * [TMEM] + [PENDING])
    assert running.device.stats()["fetched_pages"] == 12


def test_pull_takes_no_buffer_of_its_own(running: Running, source: Source) -> None:
    """Also for pages that go to disk: there is a thread for each device that arrives."""
    device = running.device
    device.set_guest("here")
    device.max_pages = 0
    held = []

    def keep() -> None:
        before = transfer_buffers()
        device.keep(0, b"".join(OTHER_HOST.values()))
        held.append(transfer_buffers() - before)

    thread = threading.Thread(target=keep)
    thread.start()
    thread.join()
    assert held == [0]
    assert set(device.state_bytes()) == {DISK}


def test_pages_that_tmem_rejects_go_to_disk(running: Running, source: Source) -> None:
    running.device.set_guest("here")
    running.device.max_pages = 0
    guest = running.connect()
    expected = b"".join(OTHER_HOST[page] for page in range(4, 12))
    for _ in range(2):
        assert read(guest, 4 * PAGE, 8 * PAGE) == expected
    assert source.asked == [(4, 8)]
    assert running.device.state_bytes(4, 8) == bytes(8 * [DISK])


def test_part_of_a_page_is_changed(running: Running, source: Source) -> None:
    running.device.set_guest("here")
    guest = running.connect()
    guest.pwrite(b"x" * 100, 9 * PAGE + 50)
    changed = OTHER_HOST[9][:50] + b"x" * 100 + OTHER_HOST[9][150:]
    assert read(guest, 9 * PAGE, PAGE) == changed
    source.error = errno.EHOSTUNREACH
    fails(lambda: guest.pwrite(b"x" * 100, 10 * PAGE + 50))
    assert state(running.device, 10) == PENDING


def test_source_is_away(running: Running, source: Source) -> None:
    running.device.set_guest("here")
    guest = running.connect()
    guest.pwrite(page_of(900), 5 * PAGE)
    source.error = errno.EHOSTUNREACH
    fails(lambda: read(guest, 4 * PAGE, PAGE))
    fails(lambda: read(guest, 4 * PAGE, 3 * PAGE))
    assert read(guest, 5 * PAGE, PAGE) == page_of(900)
    assert state(running.device, 4) == PENDING
    source.error = 0
    assert read(guest, 4 * PAGE, 2 * PAGE) == OTHER_HOST[4] + page_of(900)


# --- what comes between ---


def test_taken_while_it_was_asked(running: Running, source: Source) -> None:
    """What was asked for before may be older than what the guest wrote over there since."""
    source.meanwhile = lambda: running.device.set_guest("here")  # type: ignore[method-assign]
    assert read(running.connect(), 4 * PAGE, PAGE) == OTHER_HOST[4]
    assert state(running.device, 4) == PENDING


@pytest.mark.parametrize("rejected", [False, True])
def test_written_while_it_was_asked(running: Running, source: Source, rejected: bool) -> None:
    running.device.set_guest("here")
    if rejected:
        running.device.max_pages = 0
    guest = running.connect()
    # A connection that opened later would wait for the read.
    other = running.connect()
    source.meanwhile = lambda: other.pwrite(page_of(900), 5 * PAGE)  # type: ignore[method-assign]
    read(guest, 4 * PAGE, 3 * PAGE)
    assert read(guest, 4 * PAGE, 3 * PAGE) == OTHER_HOST[4] + page_of(900) + OTHER_HOST[6]


def test_fetched_by_another_and_dropped_over_there(running: Running, source: Source) -> None:
    """The source has let go: its error is none, as the pages are here."""
    running.device.set_guest("here")

    def fetch(first: int, pages: int) -> bytes:
        for page in range(first, first + pages):
            running.device.keep(page, OTHER_HOST[page])
        raise OSError(errno.ESHUTDOWN, os.strerror(errno.ESHUTDOWN))

    running.device.on_fetch = fetch
    assert read(running.connect(), 4 * PAGE, 3 * PAGE) == b"".join(
        OTHER_HOST[page] for page in range(4, 7)
    )


def test_kept_only_where_it_is_pending(running: Running, source: Source) -> None:
    running.device.set_guest("here")
    guest = running.connect()
    guest.pwrite(page_of(900), 5 * PAGE)
    guest.pwrite(page_of(901), 6 * PAGE, FLAG_FUA)
    guest.trim(PAGE, 7 * PAGE)
    running.device.keep(4, b"".join(OTHER_HOST[page] for page in range(4, 9)))
    expected = OTHER_HOST[4] + page_of(900) + page_of(901) + bytes(PAGE) + OTHER_HOST[8]
    assert read(guest, 4 * PAGE, 5 * PAGE) == expected


# --- what the other host has nothing of, and the end ---


def test_states_of_the_other_host(running: Running, source: Source) -> None:
    running.device.set_guest("here")
    guest = running.connect()
    guest.pwrite(page_of(900), 9 * PAGE)
    states = [HOLE, HOLE, UNKNOWN, LOST, TMEM, DISK, PENDING, 0x77, HOLE, HOLE]
    running.device.take_states(0, bytes(states))
    found = running.device.state_bytes(0, 10)
    assert list(found) == [PENDING, HOLE, UNKNOWN, LOST] + 4 * [PENDING] + [HOLE, TMEM]
    fails(lambda: read(guest, 2 * PAGE, PAGE))
    assert read(guest, PAGE, PAGE) == bytes(PAGE)


def test_given_up(running: Running, source: Source) -> None:
    running.device.set_guest("here")
    guest = running.connect()
    guest.pwrite(page_of(900), 9 * PAGE)
    running.device.give_up()
    states = running.device.state_bytes()
    assert (states[0], states[9]) == (DISK, TMEM)
    assert set(states[1:9] + states[10:]) == {LOST}
    fails(lambda: read(guest, PAGE, PAGE))
    assert read(guest, 9 * PAGE, PAGE) == page_of(900)


def test_made_anew(running: Running) -> None:
    """Whatever was in it."""
    device = running.open().devices["g1"]
    guest = running.connect()
    guest.pwrite(page_of(1) * 8, 8 * PAGE)
    guest.pwrite(page_of(2) * 8, 16 * PAGE, FLAG_FUA)
    for pending, outside, inside in ((True, PENDING, PENDING), (False, UNKNOWN, DISK)):
        device.park(1000)
        device.renew(pending=pending)
        device.resume()
        states = device.state_bytes()
        assert (states[PAGE_IN_ZONE], set(states[1:])) == (inside, {outside})
        check_coherence(running.instance)
    assert running.instance.host.stats()["stored_pages"] == 0


# --- who is served ---


def test_gone_serves_its_taker_alone(running: Running) -> None:
    device = running.open().devices["g1"]
    guest = running.connect()
    guest.pwrite(page_of(1), 4 * PAGE)
    device.life = 77
    mine, others, older = device.pull(77, 5), device.pull(77, 6), device.pull(76, 5)
    assert read(mine, 4 * PAGE, PAGE) == read(others, 4 * PAGE, PAGE) == page_of(1)
    fails(lambda: read(older, 4 * PAGE, PAGE), errno.ESHUTDOWN)
    fails(lambda: mine.pwrite(page_of(2), 4 * PAGE), errno.EROFS)
    fails(lambda: mine.trim(PAGE, 4 * PAGE), errno.EROFS)
    device.set_guest("gone", 5)
    assert read(mine, 4 * PAGE, PAGE) == page_of(1)
    fails(lambda: read(others, 4 * PAGE, PAGE), errno.ESHUTDOWN)
    for request in (
        lambda: read(guest, 4 * PAGE, PAGE),
        lambda: read(guest, 0, PAGE),
        lambda: read(guest, 0, 64 * PAGE),
        lambda: guest.pwrite(page_of(2), 4 * PAGE),
        lambda: guest.pwrite(page_of(2) * 64, 4 * PAGE),
        lambda: guest.trim(PAGE, 4 * PAGE),
        lambda: guest.zero(PAGE, 4 * PAGE),
        lambda: guest.extents(PAGE, 4 * PAGE),
    ):
        fails(request)
    device.life = 78
    fails(lambda: read(mine, 4 * PAGE, PAGE), errno.ESHUTDOWN)
    fails(lambda: mine.extents(PAGE, 0), errno.ESHUTDOWN)


def test_life_that_ends_while_its_pages_are_read(running: Running, source: Source) -> None:
    """What is there by then is another guest's."""
    device = running.device
    device.set_guest("here")
    device.life = 77
    mine, other = device.pull(77, 5), running.connect()

    def meanwhile() -> None:
        device.life = 0
        other.pwrite(page_of(900), 6 * PAGE)

    source.meanwhile = meanwhile  # type: ignore[method-assign]
    content = bytearray(4 * PAGE)
    fails(lambda: mine.pread(content, 4 * PAGE), errno.ESHUTDOWN)
