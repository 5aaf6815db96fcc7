# SPDX-License-Identifier: BSD-3-Clause
"""Shared memory is damaged, under a running server and between two starts."""

import errno
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import Connect, discard
from tests.conftest import StartServer
from tests.faults.conftest import NOISE, counters, error_of, page, place
from tests.running import RunningServer, run
from tests.tmem.arena_file import SLAB, flip_bit, slots_of

PAGES = range(1, 17)
DAMAGED = 5


@pytest.fixture
def client(server: RunningServer, connect: Connect) -> Any:
    """Sixteen pages in tmem."""
    return filled(connect(server))


@pytest.fixture
def shared(module_server: RunningServer, connect: Connect) -> Any:
    """The same, on a server that other tests use too."""
    return filled(connect(module_server))


def filled(client: Any) -> Any:
    client.pwrite(NOISE[PAGE : 17 * PAGE], place(1))
    return client


def damage(server: RunningServer) -> None:
    """Turns one bit over in the payload of page DAMAGED, once that stays where it is."""
    server.settled_stats()
    (slot,) = (slot for slot in slots_of(server.arena) if slot.page == page(DAMAGED))
    flip_bit(server.arena, slot.payload_at + 1000, 3)


def check(client: Any, *but: int) -> None:
    """All pages but these are as they were written."""
    for number in set(PAGES) - set(but):
        assert bytes(client.pread(PAGE, place(number))) == page(number)


# --- a page, under a running server ---


def test_damaged_page_is_an_error_and_its_neighbours_are_intact(
    module_server: RunningServer, shared: Any
) -> None:
    before = module_server.json_stats()["tmem"]["checksum_errors"]
    damage(module_server)
    assert error_of(shared.pread, PAGE, place(DAMAGED)) == errno.EIO
    assert error_of(shared.pread, 16 * PAGE, place(1)) == errno.EIO
    check(shared, DAMAGED)
    assert module_server.json_stats()["tmem"]["checksum_errors"] == before + 2


def test_damaged_page_is_not_merged_with_a_part_of_it(
    module_server: RunningServer, shared: Any
) -> None:
    damage(module_server)
    assert error_of(shared.pwrite, b"part", place(DAMAGED) + 7) == errno.EIO


def test_damaged_page_rewritten_reads_again(module_server: RunningServer, shared: Any) -> None:
    damage(module_server)
    shared.pwrite(page(DAMAGED), place(DAMAGED))
    check(shared)


def test_damaged_page_trimmed_reads_as_zeros(module_server: RunningServer, shared: Any) -> None:
    damage(module_server)
    shared.trim(PAGE, place(DAMAGED))
    assert bytes(shared.pread(PAGE, place(DAMAGED))) == bytes(PAGE)
    check(shared, DAMAGED)


def test_damaged_page_is_lost_to_a_shrink_which_goes_on(server: RunningServer, client: Any) -> None:
    damage(server)
    done = server.ctl("--json", "shrink", "0")
    report = json.loads(done.stdout)
    assert (report["complete"], report["lost"], report["moved"]) == (True, 1, 15)
    assert "1 page (4 KiB) could not be read back" in done.stderr.replace("4K", "4 KiB")
    assert error_of(client.pread, PAGE, place(DAMAGED)) == errno.EIO
    check(client, DAMAGED)
    assert counters(server)["lost_pages"] == 1


def test_damaged_page_stays_an_error_after_a_kill(
    server: RunningServer, client: Any, connect: Connect
) -> None:
    damage(server)
    server.kill()
    server.start()
    again = connect(server)
    assert error_of(again.pread, PAGE, place(DAMAGED)) == errno.EIO
    check(again, DAMAGED)


def test_doctor_tells_of_damaged_pages(server: RunningServer, client: Any) -> None:
    damage(server)
    error_of(client.pread, PAGE, place(DAMAGED))
    assert "1 reads of a damaged or lost page" in server.ctl("doctor", check=False).stdout


# --- all of it, under a running server ---


def test_deleted_arena_is_served_on_and_no_start_follows(
    server: RunningServer, client: Any
) -> None:
    server.arena.unlink()
    check(client)
    server.kill()
    status, said = refused(server)
    assert status == 4
    assert "the pages of g1 that were in shared memory are gone" in said


def test_truncated_arena_ends_the_server_and_no_start_follows(
    server: RunningServer, client: Any
) -> None:
    """A load from behind its end is SIGBUS: no answer rather than a wrong one.

    The server's own work in the arena may meet it before the request comes.
    """
    os.truncate(server.arena, SLAB)
    assert error_of(client.pread, PAGE, place(1)) in (errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE)
    assert server.wait() == -signal.SIGBUS
    status, said = refused(server)
    assert status == 4
    assert "it is truncated" in said


# --- between two starts ---


def refused(server: RunningServer) -> tuple[int, str]:
    """Exit status and complaint, in one line, of a start that is not to be."""
    done = run(server.command())
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


HARM: dict[str, tuple[Callable[[RunningServer], object], str]] = {
    "arena missing": (lambda s: s.arena.unlink(), "--discard-state starts empty"),
    "arena of another format": (
        lambda s: overwrite(s.arena, 8, b"\x09"),
        "is version 9, this release reads version 1",
    ),
    "device table damaged": (lambda s: flip_bit(s.arena, 8264, 1), "its device table is damaged"),
    "sidecar damaged": (lambda s: overwrite(s.state_dir / "g1.json", 0, b"?"), "is damaged"),
}


@pytest.mark.parametrize(("harm", "sentence"), HARM.values(), ids=HARM.keys())
def test_start_after_harm_is_refused_until_its_state_is_discarded(
    server: RunningServer,
    client: Any,
    connect: Connect,
    harm: Callable[[RunningServer], object],
    sentence: str,
) -> None:
    server.kill()
    harm(server)
    status, said = refused(server)
    assert status == 4
    assert sentence in said
    server.extra = ["--discard-state"]
    server.start()
    again = connect(server)
    for number in PAGES:
        assert error_of(again.pread, PAGE, place(number)) == errno.EIO
    assert bytes(discard(again).pread(16 * PAGE, place(1))) == bytes(16 * PAGE)


def test_flipped_bits_in_slabs_never_give_wrong_pages(
    start_server: StartServer, connect: Connect
) -> None:
    """Headers, class words and payloads alike: a page is right or an error."""
    server = start_server(pool_size="4M")
    connect(server).pwrite(NOISE[PAGE : 257 * PAGE], place(1))
    server.kill()
    source = random.Random(5)
    for _ in range(200):
        flip_bit(server.arena, source.randrange(SLAB, 16 * SLAB), source.randrange(8))
    server.start()
    again, errors = connect(server), 0
    for number in range(1, 257):
        try:
            assert bytes(again.pread(PAGE, place(number))) == page(number)
        except nbd.Error as error:
            assert error.errnum == errno.EIO  # noqa: PT017 - others are compared
            errors += 1
    assert 0 < errors < 256
