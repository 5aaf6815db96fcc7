# SPDX-License-Identifier: BSD-3-Clause
"""Pages that writeback moves to disk are set in the store, and read from there; whatever it
answers, a read returns what the page holds."""

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from preswapd.preswap.device._device import FLAG_FUA, Connection
from preswapd.remote._remote import Remote
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.coherence import check_coherence
from tests.preswap.disk_model import page_of
from tests.preswap.running import Running, read
from tests.remote.conftest import PAGES
from tests.remote.played import AWAY, ERROR, NAME, Get, Played, frame
from tests.running import PATIENCE, wait_for, wait_until

ALL = b"".join(map(page_of, PAGES))
# As in courier.h.
QUEUE_BYTES, UNANSWERED_ALONE = 16 << 20, 256
SHORT_MS = 50.0  # a wait that a test waits for
AWAY_MOST = 32  # of tier.c


def device_counters(running: Running) -> Mapping[str, int]:
    return cast(Mapping[str, int], running.device.stats())


def read_all(running: Running) -> bytes:
    return read(running.connect(), PAGE, len(PAGES) * PAGE)


def read_one_by_one(running: Running) -> bytes:
    return b"".join(read(running.connect(), page * PAGE, PAGE) for page in PAGES)


@pytest.mark.parametrize("reads", [read_all, read_one_by_one])
def test_what_was_set_is_read_from_the_store(
    stored: Running, remote: Remote, reads: Callable[[Running], bytes]
) -> None:
    assert reads(stored) == ALL
    assert remote.figures()["remote_reads"] == len(PAGES)
    assert device_counters(stored)["disk_reads"] == 0


def test_a_run_is_asked_for_at_once(stored: Running, courier: Played) -> None:
    """32 names a frame, and all before the first answer."""
    read_all(stored)
    assert courier.gets == -(-len(PAGES) // 32)


def test_pages_come_back_into_memory_from_the_store(stored: Running, remote: Remote) -> None:
    stored.device.promoted_below = None
    assert read_one_by_one(stored) == ALL
    assert device_counters(stored)["promoted_pages"] == len(PAGES)
    assert device_counters(stored)["refaults"] == len(PAGES)
    check_coherence(stored.instance)
    assert read_all(stored) == ALL
    assert remote.figures()["remote_reads"] == len(PAGES)


def test_what_the_store_has_forgotten_is_read_from_disk_and_not_asked_for_again(
    stored: Running, remote: Remote, courier: Played
) -> None:
    courier.store.clear()
    assert read_all(stored) == ALL
    assert remote.figures()["remote_misses"] == len(PAGES)
    asked = courier.gets
    assert read_all(stored) == ALL
    assert courier.gets == asked
    assert device_counters(stored)["disk_reads"] == 2 * len(PAGES)


def test_a_get_that_overtakes_its_set_leaves_nothing_in_the_store(
    stored: Running, remote: Remote, courier: Played
) -> None:
    """They go to a node by ways of their own: what is set after all would stay there for a day."""
    courier.on_get = lambda get: b"".join(get.value(i, None) for i in range(len(get.names)))
    assert read_all(stored) == ALL
    assert remote.figures()["remote_pages"] == 0
    remote.tick()
    wait_until(lambda: not courier.store, "the names to be deleted")


def test_a_page_that_changes_is_deleted_in_the_store(
    stored: Running, remote: Remote, courier: Played
) -> None:
    connection = stored.connect()
    connection.pwrite(page_of(500), PAGE)
    connection.pwrite(page_of(501), 2 * PAGE, FLAG_FUA)
    connection.trim(PAGE, 3 * PAGE)
    assert remote.figures()["remote_pages"] == len(PAGES) - 3
    remote.tick()
    wait_until(lambda: len(courier.deletes) == 3, "the names to be deleted")
    assert len(courier.store) == len(PAGES) - 3
    found = read_all(stored)
    assert found == page_of(500) + page_of(501) + bytes(PAGE) + ALL[3 * PAGE :]
    assert remote.figures()["remote_wrong"] == 0


def test_nothing_is_set_or_read_while_it_is_off(
    running: Running, remote: Remote, courier: Played
) -> None:
    remote.enabled = False
    running.instance.shrink(0)
    assert read_all(running) == ALL
    assert remote.figures()["remote_sets"] + remote.figures()["remote_sets_dropped"] == 0
    remote.enabled = True
    running.device.use_remote(None)
    read_all(running)
    assert courier.gets == 0


def test_what_was_set_before_is_read_when_it_is_on_again(stored: Running, remote: Remote) -> None:
    remote.enabled = False
    assert read_all(stored) == ALL
    remote.enabled = True
    assert read_all(stored) == ALL
    assert remote.figures()["remote_reads"] == len(PAGES)


def test_without_a_courier_the_disk_serves(running: Running, remote: Remote) -> None:
    running.instance.shrink(0)
    assert read_all(running) == ALL
    figures = {name: number for name, number in remote.figures().items() if number}
    assert figures.pop("remote_sets_dropped") == len(PAGES)
    assert not any(name.startswith("remote_") for name in figures)


def test_a_device_has_one_remote_tier(stored: Running) -> None:
    with pytest.raises(ValueError, match="one remote tier"):
        stored.device.use_remote(Remote(bytes(32), 1, 0, 60))


# --- a store, or a courier, that is wrong ---


def flip(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_bit_that_flips_anywhere_is_found(
    stored: Running, remote: Remote, courier: Played
) -> None:
    """In a value that is short, as its page is same-filled.  What is wrong is not asked for again,
    so the page is written again for each bit."""
    connection = stored.connect()
    short = min(courier.store.values(), key=len)
    for bit in range(len(short) * 8):
        connection.pwrite(page_of(3), 3 * PAGE)
        stored.device.writeback(0)
        courier.on_get = lambda get, bit=bit: get.value(0, flip(courier.store[get.names[0]], bit))
        assert read(connection, 3 * PAGE, PAGE) == page_of(3)
        assert remote.figures()["remote_wrong"] == bit + 1


def swapped(courier: Played, get: Get) -> bytes:
    """The first page that was asked for gets the value of the last, and so on."""
    values = [courier.store.get(name) for name in get.names]
    return b"".join(get.value(i, value) for i, value in enumerate(reversed(values)))


def cut(courier: Played, get: Get) -> bytes:
    values = [courier.store[name] for name in get.names]
    return b"".join(get.value(i, value[: -1 - i]) for i, value in enumerate(values))


def empty(courier: Played, get: Get) -> bytes:
    return b"".join(get.value(i, b"") for i in range(len(get.names)))


def too_long(courier: Played, get: Get) -> bytes:
    return b"".join(get.value(i, bytes(100_000)) for i in range(len(get.names)))


@pytest.mark.parametrize("fault", [swapped, cut, empty, too_long])
def test_what_is_not_the_page_is_counted_and_read_from_disk(
    stored: Running, remote: Remote, courier: Played, fault: Callable[[Played, Get], bytes]
) -> None:
    courier.on_get = lambda get: fault(courier, get)
    # Of an odd number of pages one is swapped with itself.
    pages = range(1, 33)
    assert read(stored.connect(), PAGE, len(pages) * PAGE) == ALL[: len(pages) * PAGE]
    assert remote.figures()["remote_wrong"] == len(pages)
    assert device_counters(stored)["disk_reads"] == len(pages)


def test_an_older_page_is_not_read(stored: Running, remote: Remote, courier: Played) -> None:
    older = dict(zip(courier.store.keys(), courier.store.values(), strict=True))
    connection = stored.connect()
    connection.pwrite(page_of(500), PAGE)
    stored.instance.shrink(0)
    wait_for(lambda: remote.figures()["remote_sets"], lambda sets: sets == len(PAGES) + 1)
    for value in older.values():
        courier.on_get = lambda get, value=value: get.value(0, value)
        assert read(connection, PAGE, PAGE) == page_of(500)
    assert remote.figures()["remote_reads"] == 0


def test_of_another_session_nothing_opens(
    stored: Running, remote: Remote, courier: Played, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same key, page and version number."""
    with Running(tmp_path_factory.mktemp("other")) as other:
        other.open()
        later = Remote(bytes(32), 10_000, 0, 3600)
        other.device.use_remote(later)
        for page in PAGES:
            other.connect().pwrite(page_of(page), page * PAGE)
        with Played(later) as theirs:
            other.instance.shrink(0)
            wait_for(lambda: later.figures()["remote_sets"], lambda sets: sets == len(PAGES))
            assert not courier.store.keys() & theirs.store.keys()
            values = list(courier.store.values())
            theirs.on_get = lambda get: b"".join(
                get.value(i, values[i]) for i in range(len(get.names))
            )
            assert read(other.connect(), PAGE, 32 * PAGE) == ALL[: 32 * PAGE]
            assert later.figures()["remote_wrong"] == 32


@pytest.mark.parametrize("status", [AWAY, ERROR])
def test_a_node_that_is_away_is_the_disks_turn_and_may_be_asked_again(
    stored: Running, remote: Remote, courier: Played, status: int
) -> None:
    courier.on_get = lambda get: b"".join(
        frame(b"v", get.ident, status=status, index=i) for i in range(len(get.names))
    )
    assert read_all(stored) == ALL
    assert remote.figures()["remote_away"] == len(PAGES)
    courier.on_get = None
    assert read_all(stored) == ALL
    assert remote.figures()["remote_reads"] == len(PAGES)


def test_only_what_did_not_come_is_read_from_disk(
    stored: Running, remote: Remote, courier: Played
) -> None:
    remote.set_timeout(SHORT_MS)
    courier.on_get = lambda get: b"".join(
        get.value(i, courier.store[name]) for i, name in enumerate(get.names) if i % 2
    )
    assert read_all(stored) == ALL
    late = device_counters(stored)["disk_reads"]
    assert 0 < remote.figures()["remote_late"] == late < len(PAGES)
    assert remote.figures()["remote_reads"] == len(PAGES) - late


def test_a_request_in_many_pieces_waits_once(
    stored: Running, remote: Remote, courier: Played
) -> None:
    """Between its pages on disk lie others in memory; each piece is asked for by itself, and each
    third answer, which does come, would keep the store from being left alone."""
    connection = stored.connect()
    pages = range(1, 64)
    for page in pages[1::2]:
        connection.pwrite(page_of(page), page * PAGE)
    remote.set_timeout(SHORT_MS)
    courier.on_get = lambda get: b"" if courier.gets % 3 else courier.truth(get)
    assert read(connection, PAGE, len(pages) * PAGE) == ALL[: len(pages) * PAGE]
    assert remote.figures()["remote_late"] == 1
    assert courier.gets == 1


def test_a_courier_that_hangs_holds_no_read_and_then_is_not_asked(
    stored: Running, remote: Remote, courier: Played
) -> None:
    remote.set_timeout(SHORT_MS)
    courier.held.clear()
    for _ in range(3):
        assert not remote.figures()["remote_open"]
        assert read_all(stored) == ALL
    assert remote.figures()["remote_late"] == 3 * len(PAGES)
    assert remote.figures()["remote_open"]
    assert read_all(stored) == ALL
    assert remote.figures()["remote_late"] == 3 * len(PAGES)
    assert remote.figures()["remote_away"] == len(PAGES)


def test_a_store_that_hung_is_asked_again_when_its_courier_has_news_of_it(
    stored: Running, remote: Remote, courier: Played
) -> None:
    """Also where nothing is left in it that could be asked for."""
    remote.set_timeout(SHORT_MS)
    courier.held.clear()
    for _ in range(3):
        read_all(stored)
    connection = stored.connect()
    for page in PAGES:
        connection.pwrite(page_of(page), page * PAGE)
    stored.instance.shrink(0)
    assert remote.figures()["remote_open"]
    assert remote.figures()["remote_pages"] == 0
    assert remote.figures()["remote_sets_dropped"] == len(PAGES)
    remote.set_timeout(10_000)
    courier.held.set()
    heard = remote.heard
    courier.say(state="ok")
    wait_until(lambda: remote.heard > heard, "the courier's news")
    for page in PAGES:
        connection.pwrite(page_of(page), page * PAGE)
    stored.instance.shrink(0)
    # A get overtakes those that are still to go out.
    wait_for(lambda: remote.figures()["remote_sets"], lambda sets: sets == 2 * len(PAGES))
    assert read_all(stored) == ALL
    assert remote.figures()["remote_reads"] == len(PAGES)
    assert not remote.figures()["remote_open"]


def away(get: Get) -> bytes:
    return b"".join(frame(b"v", get.ident, status=AWAY, index=i) for i in range(len(get.names)))


def test_a_store_whose_nodes_are_all_away_is_left_alone_until_there_is_news_of_it(
    stored: Running, remote: Remote, courier: Played
) -> None:
    """A courier that says so costs no time, but it costs processors that guests need."""
    courier.on_get = away
    connection = stored.connect()
    for _ in range(AWAY_MOST + 3):
        assert not remote.figures()["remote_open"]
        assert read(connection, PAGE, PAGE) == page_of(1)
    asked = courier.gets
    assert asked == AWAY_MOST + 3
    assert remote.figures()["remote_open"]
    assert read_all(stored) == ALL
    assert courier.gets == asked
    courier.on_get = None
    heard = remote.heard
    courier.say(state="ok")
    wait_until(lambda: remote.heard > heard, "the courier's news")
    assert read_all(stored) == ALL
    assert remote.figures()["remote_reads"] == len(PAGES)
    assert not remote.figures()["remote_open"]


def test_a_store_of_which_a_node_is_there_is_asked(
    stored: Running, remote: Remote, courier: Played
) -> None:
    def answer(get: Get) -> bytes:
        return away(get) if courier.gets % AWAY_MOST else courier.truth(get)

    courier.on_get = answer
    connection = stored.connect()
    for _ in range(4 * AWAY_MOST):
        assert read(connection, PAGE, PAGE) == page_of(1)
        assert not remote.figures()["remote_open"]
    assert remote.figures()["remote_reads"] == 4


def test_gets_that_wait_together_are_in_vain_once(
    stored: Running, remote: Remote, courier: Played
) -> None:
    """One hiccup meets them all: the store is asked again at once."""
    remote.set_timeout(1000)
    courier.held.clear()
    connections = [stored.connect() for _ in range(6)]
    threads = [
        threading.Thread(target=read, args=(connection, page * PAGE, PAGE))
        for page, connection in enumerate(connections, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert remote.figures()["remote_late"] == len(threads)
    assert not remote.figures()["remote_open"]


def test_a_late_answer_is_nobodys(stored: Running, remote: Remote, courier: Played) -> None:
    """It comes while another page is asked for, before the answer to that."""
    remote.set_timeout(SHORT_MS)
    connection = stored.connect()
    kept: list[bytes] = []

    def keep(get: Get) -> bytes:
        kept.append(courier.truth(get))
        return b""

    courier.on_get = keep
    assert read(connection, PAGE, PAGE) == page_of(1)
    assert remote.figures()["remote_late"] == 1
    remote.set_timeout(10_000)
    courier.on_get = lambda get: kept[0] + courier.truth(get)
    assert read(connection, 2 * PAGE, PAGE) == page_of(2)
    assert remote.figures()["remote_reads"] == 1
    assert remote.figures()["remote_wrong"] == 0


def test_answers_go_to_who_has_asked(stored: Running, remote: Remote, courier: Played) -> None:
    """Three readers wait, for a frame each; their answers come in the opposite order, and all in
    one piece."""
    waiting: list[bytes] = []
    firsts = (1, 33, 65)

    def answer(get: Get) -> bytes:
        waiting.append(courier.truth(get))
        return b"".join(reversed(waiting)) if len(waiting) == len(firsts) else b""

    courier.on_get = answer
    found: dict[int, bytes] = {}

    def look(connection: Connection, first: int) -> None:
        found[first] = read(connection, first * PAGE, 32 * PAGE)

    # None of them is opened while a request is in flight, for which its first one would wait.
    threads = [threading.Thread(target=look, args=(stored.connect(), first)) for first in firsts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert b"".join(found[first] for first in firsts) == ALL[: 96 * PAGE]
    assert remote.figures()["remote_reads"] == 96


def test_answers_under_other_numbers_change_nothing(
    stored: Running, remote: Remote, courier: Played
) -> None:
    def answer(get: Get) -> bytes:
        wrong = [
            frame(b"v", ident, courier.store[get.names[0]], index=index)
            for ident in (0, get.ident + 1, get.ident - 1, 2**64 - 1)
            for index in (0, 1, 31, 32, 255)
            if ident != get.ident and ident >= 0
        ]
        beyond = [get.value(index, bytes(100)) for index in (len(get.names), 32, 255)]
        return b"".join([*wrong, *beyond, courier.truth(get), courier.truth(get)])

    courier.on_get = answer
    assert read_one_by_one(stored) == ALL
    assert remote.figures()["remote_reads"] == len(PAGES)


# --- a courier that goes ---

GARBAGE = {
    "an operation that there is none": frame(b"x", 1),
    "a get of the courier": frame(b"g", 1, bytes(NAME)),
    "a payload that is too long": frame(b"j", 0)[4:].rjust(16, b"\xff"),
    "a status that there is none": frame(b"v", 1, status=4),
    "a set with a payload": frame(b"s", 1, b"x"),
    "a head that is not zero": frame(b"v", 1)[:7] + b"\x01" + bytes(8),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_who_sends_no_frame_is_given_up(
    stored: Running, remote: Remote, courier: Played, garbage: str
) -> None:
    courier.on_get = lambda get: GARBAGE[garbage]
    assert read_all(stored) == ALL
    assert not remote.connected
    wait_until(lambda: courier.why is not None, "serve() to return")
    assert courier.why == "what it sent is no frame"
    assert device_counters(stored)["disk_reads"] == len(PAGES)


def test_a_courier_that_dies_is_a_miss_and_the_next_one_is_asked(
    stored: Running, remote: Remote, courier: Played
) -> None:
    courier.on_get = lambda get: (courier.far.close(), b"")[1]  # type: ignore[func-returns-value]
    assert read_all(stored) == ALL
    wait_until(lambda: courier.why is not None, "serve() to return")
    assert courier.why
    with Played(remote, courier.store) as following:
        assert read_all(stored) == ALL
        assert following.gets
    assert remote.figures()["remote_reads"] == len(PAGES)


def test_disconnect_ends_a_read_that_waits(
    stored: Running, remote: Remote, courier: Played
) -> None:
    asked = threading.Event()
    courier.on_get = lambda get: (asked.set(), b"")[1]  # type: ignore[func-returns-value]
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read_all(stored)))
    reader.start()
    assert asked.wait(PATIENCE)
    remote.disconnect()
    reader.join(PATIENCE)
    assert found == [ALL]
    assert not remote.connected


def test_there_is_one_courier_at_a_time(remote: Remote, courier: Played) -> None:
    with pytest.raises(ValueError, match="has a courier"):
        remote.connect(0)


def test_what_it_says_of_the_store_is_kept(remote: Remote, courier: Played) -> None:
    assert remote.status() == b""
    courier.say(state="ok", nodes=["x" * 100_000])
    wait_for(lambda: len(remote.status()), lambda size: size > 100_000)
    courier.say(state="away")
    wait_for(remote.status, lambda said: said == b'{"state": "away"}')


# --- sets ---


def test_sets_wait_for_nobody(running: Running, remote: Remote, courier: Played) -> None:
    """The courier reads nothing, and a shrink moves all the same; more than the queue takes is
    dropped, and read from disk."""
    courier.held.clear()
    connection = running.connect()
    rounds = 0
    while not remote.figures()["remote_sets_dropped"]:
        rounds += 1
        assert rounds < 300
        for page in range(2, 98, 3):  # what does not compress
            connection.pwrite(page_of(page), page * PAGE)
        running.instance.shrink(0)
    remote.set_timeout(SHORT_MS)
    assert read_all(running) == ALL


def test_sets_go_out_when_there_is_room_again_while_a_read_waits(
    running: Running, remote: Remote
) -> None:
    """Though nothing is answered that would wake who waits."""
    remote.set_timeout(60_000)  # longer than this test waits
    taken: list[int] = []

    def take(ident: int, name: bytes, value: bytes) -> bytes:
        taken.append(ident)
        return b""

    with Played(remote, room=1) as courier:
        running.instance.shrink(0)
        wait_for(lambda: remote.figures()["remote_sets"], lambda sets: sets == len(PAGES))
        courier.on_get = lambda get: b""
        courier.on_set = take
        connection = running.connect()
        waiting = threading.Thread(target=read, args=(connection, PAGE, PAGE))
        waiting.start()
        wait_until(lambda: courier.gets == 1, "the read")
        for page in PAGES[1:]:
            connection.pwrite(page_of(page), page * PAGE)
        running.instance.shrink(0)
        # Of 32 that may go out before the first of them is answered.
        wait_for(lambda: len(taken), lambda sets: sets > 16)
    waiting.join(PATIENCE)
    assert not waiting.is_alive()


def set_often(running: Running, times: int) -> None:
    """All pages, so often; each time they are what they were."""
    connection = running.connect()
    for _ in range(times):
        for page in PAGES:
            connection.pwrite(page_of(page), page * PAGE)
        running.instance.shrink(0)


def test_what_is_still_queued_is_read_from_there(
    running: Running, remote: Remote, courier: Played
) -> None:
    """A get would overtake it, and miss it."""
    courier.held.clear()
    set_often(running, UNANSWERED_ALONE // len(PAGES) + 2)
    assert read_all(running) == ALL
    assert remote.figures()["remote_reads"] == len(PAGES)
    assert remote.figures()["remote_misses"] == device_counters(running)["disk_reads"] == 0
    remote.enabled = False
    assert read_all(running) == ALL
    assert device_counters(running)["disk_reads"] == len(PAGES)


def test_so_many_sets_are_under_way_at_most(
    running: Running, remote: Remote, courier: Played
) -> None:
    came: list[bytes] = []

    def take(_ident: int, name: bytes, _value: bytes) -> bytes:
        came.append(name)
        return b""

    courier.on_set = take
    set_often(running, UNANSWERED_ALONE // len(PAGES) + 2)
    wait_for(lambda: len(came), lambda sets: sets > UNANSWERED_ALONE // 2)
    remote.tick()
    courier.say(state="ok")
    wait_for(lambda: remote.heard, bool)
    # A get goes out behind what has gone.
    assert read_all(running) == ALL
    assert len(came) <= UNANSWERED_ALONE


def test_a_get_finds_room_beside_sets(stored: Running, remote: Remote, courier: Played) -> None:
    """Though more of them are to go out than the courier takes for now."""
    taken: list[int] = []
    go_on = threading.Event()

    def take(ident: int, name: bytes, value: bytes) -> bytes:
        taken.append(ident)
        if len(taken) == 4:
            go_on.wait(PATIENCE)
        return frame(b"s", ident)

    courier.on_set = take
    courier.held.clear()
    connection = stored.connect()
    for _ in range(8):
        for page in range(2, 98, 3):  # what does not compress
            connection.pwrite(page_of(page), page * PAGE)
        stored.instance.shrink(0)
    courier.held.set()
    # With each answer that is read more go out.
    wait_for(lambda: remote.figures()["remote_sets"], lambda sets: sets == len(PAGES) + 3)
    remote.set_timeout(SHORT_MS)
    assert read(connection, PAGE, PAGE) == page_of(1)
    go_on.set()
    wait_until(lambda: courier.gets == 1, "what was asked for")


def fill_queue(running: Running, remote: Remote, courier: Played) -> int:
    """Until it takes no more: how many sets lie in it, or are under way."""
    courier.on_set = lambda ident, name, value: frame(b"s", ident)
    courier.held.clear()
    sets = 0
    while not remote.figures()["remote_sets_dropped"]:
        set_often(running, 1)
        sets += len(PAGES)
    return sets - remote.figures()["remote_sets_dropped"]


def test_a_long_queue_gives_its_memory_back(
    running: Running, remote: Remote, courier: Played
) -> None:
    queued = fill_queue(running, remote, courier)
    courier.held.set()
    wait_for(lambda: remote.figures()["remote_sets"], lambda sets: sets == queued)
    before = private_bytes()
    remote.tick()
    assert private_bytes() < before - QUEUE_BYTES * 3 // 4


def test_so_does_that_of_a_tier_that_is_off(
    running: Running, remote: Remote, courier: Played
) -> None:
    queued = fill_queue(running, remote, courier)
    remote.enabled = False
    courier.held.set()
    wait_for(lambda: remote.figures()["remote_sets"], lambda sets: sets == queued)
    before = private_bytes()
    remote.tick()
    assert private_bytes() < before - QUEUE_BYTES * 3 // 4


def test_so_does_that_of_a_courier_that_is_gone(
    running: Running, remote: Remote, courier: Played
) -> None:
    fill_queue(running, remote, courier)
    before = private_bytes()
    remote.disconnect()
    assert private_bytes() < before - QUEUE_BYTES * 3 // 4
    assert read_all(running) == ALL


def private_bytes() -> int:
    """Memory of this process alone."""
    status = Path("/proc/self/status").read_text()
    [kibibytes] = re.findall(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) << 10


def test_sets_that_are_refused_are_counted(
    running: Running, remote: Remote, courier: Played
) -> None:
    courier.on_set = lambda ident, name, value: frame(b"s", ident, status=ERROR)
    running.instance.shrink(0)
    wait_for(lambda: remote.figures()["remote_sets_refused"], lambda sets: sets == len(PAGES))
    assert read_all(running) == ALL
    assert remote.figures()["remote_misses"] == len(PAGES)
    assert remote.figures()["remote_pages"] == 0


def test_sets_for_a_node_that_is_away_are_dropped(
    running: Running, remote: Remote, courier: Played
) -> None:
    courier.on_set = lambda ident, name, value: frame(b"s", ident, status=AWAY)
    running.instance.shrink(0)
    wait_for(lambda: remote.figures()["remote_sets_dropped"], lambda sets: sets == len(PAGES))
    assert remote.figures()["remote_sets_refused"] == 0


def test_a_name_and_a_value_tell_nothing_and_fit(stored: Running, courier: Played) -> None:
    assert len(courier.store) == len(PAGES)
    assert max(map(len, courier.store.values())) <= 4200
    values = b"".join(courier.store.values())
    assert not any(page_of(page)[:64] in values for page in PAGES)


def test_above_its_bound_the_oldest_go(running: Running, remote: Remote, courier: Played) -> None:
    most = 64 << 10
    remote.set_max(most)
    connection = running.connect()
    for _ in range(5):
        for page in PAGES:
            connection.pwrite(page_of(page), page * PAGE)
            running.device.writeback(0)
            remote.tick()
    # With the first all go that were in memory before.
    written = 6 * len(PAGES) - 1
    wait_for(lambda: remote.figures()["remote_sets"], lambda sets: sets == written)
    assert 0 < remote.figures()["remote_bytes"] <= most
    remote.tick()
    wait_for(
        lambda: sum(map(len, courier.store.values())),
        lambda size: size <= most,
    )
    assert read_all(running) == ALL
    assert 0 < remote.figures()["remote_reads"] < len(PAGES)
