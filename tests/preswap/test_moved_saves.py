# SPDX-License-Identifier: BSD-3-Clause
"""A device that moves, and saves of it: one at a time, and neither is in the other's way."""

import errno
import os
from collections.abc import Callable, Iterator
from io import BytesIO
from unittest.mock import patch

import pytest

from preswapd.errors import PreswapError, RefusedError
from preswapd.preswap.files.maps import PENDING, UNKNOWN
from preswapd.preswap.moving.names import DONE, LIFE, MAP, PULL, RELEASE, TAKE, Wanted, answered
from preswapd.preswap.saves.transfers import RestoreFailedError
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.network import Network, three_hosts
from tests.preswap.running import MIB, Running, read
from tests.preswap.saves import restore, saved

ARRIVAL = 55


@pytest.fixture
def network() -> Iterator[Network]:
    """Host a has two pages of a guest."""
    with three_hosts() as made:
        write(made.hosts["a"], 5, 6)
        yield made


def write(running: Running, *pages: int) -> None:
    client = running.connect()
    for page in pages:
        client.pwrite(page_of(page), page * PAGE)
    client.close()


def seen(running: Running) -> bytes:
    client = running.connect()
    found = read(client, 5 * PAGE, 2 * PAGE)
    client.close()
    return found


GUESTS = page_of(5) + page_of(6)


def empty(running: Running) -> None:
    """Nothing is known of it."""
    running.instance.swapoff("g1")


def check_refused(running: Running, save: bytes, why: str) -> None:
    """Both, and nothing is changed."""
    before = running.device.state_bytes(), running.sidecar(), running.device.guest
    for refused in (lambda: saved(running), lambda: restore(running, save)):
        with pytest.raises(RefusedError, match=why):
            refused()
    assert (running.device.state_bytes(), running.sidecar(), running.device.guest) == before


def asked(running: Running, wanted: Wanted) -> dict[str, object]:
    connection = running.instance.origin.connect(wanted)
    content = bytearray(connection.size)
    connection.pread(content, 0)
    return answered(bytes(content))


# --- a device of which pages are elsewhere ---


def test_refused_while_its_guest_is_coming(network: Network) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    network.announce("b", "a")
    # The guest is here as before, and where the swap of a saved one goes is its own business.
    save = saved(a)
    check_refused(b, save, "the host that its guest is to come from: save it there; .*--abandon`")
    assert set(b.device.state_bytes()) == {PENDING}
    b.instance.abandon("g1")
    empty(b)
    restore(b, save)
    assert seen(b) == GUESTS


def test_refused_while_pages_are_on_another_host(network: Network) -> None:
    a, b, c = (network.hosts[name] for name in "abc")
    save = saved(a)
    network.announce("b", "a")
    write(b, 7)
    check_refused(b, save, "g1 has pages on another host: `preswapctl pull g1` waits .*--abandon`")
    assert b.instance.moves.pulls["g1"].turn()
    later = saved(b)
    empty(c)
    restore(c, later)
    assert seen(c) == GUESTS
    client = c.connect()
    assert read(client, 7 * PAGE, PAGE) == page_of(7)


def test_refused_where_another_host_has_taken_it(network: Network) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    save = saved(a)
    network.announce("b", "a")
    write(b, 7)
    check_refused(a, save, "another host has taken g1: save it there; `preswapctl swapoff g1`")
    a.instance.swapoff("g1")
    restore(a, save)
    assert seen(a) == GUESTS
    # What was taken has been dropped, and what came later is not of that life.
    assert b.instance.moves.pulls["g1"].turn()
    assert b.device.stats()["pending_pages"] == 0
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        seen(b)


def test_refused_where_it_could_not_be_emptied(network: Network) -> None:
    """A disk error in the middle of a release: it serves nobody until that is done again."""
    a = network.hosts["a"]
    save = saved(a)
    life = int(str(asked(a, Wanted("g1", LIFE))["life"]), 16)
    assert asked(a, Wanted("g1", TAKE, life, ARRIVAL))["answer"] == DONE
    served = a.instance.served["g1"]
    served.record.change(life=0, moved=0, renewing=True)
    check_refused(a, save, "g1 was emptied in part: `preswapctl swapoff g1` does it again")
    a.instance.swapoff("g1")
    restore(a, save)
    assert seen(a) == GUESTS


# --- a device that is saved or restored now ---


def check_nobody_takes_it(network: Network, why: str) -> None:
    """Host a's, of which b was told."""
    a = network.hosts["a"]
    life = a.device.life
    before = a.sidecar()
    for word in (TAKE, RELEASE, PULL, MAP):
        with pytest.raises(OSError, match=r"shut to clients|g1 is being") as error:
            a.instance.origin.connect(Wanted("g1", word, life, ARRIVAL))
        assert error.value.errno == errno.EBUSY
    assert asked(a, Wanted("g1", LIFE))["refused"] == f"it {why}"
    with pytest.raises(RefusedError, match=f"cannot be pulled from: it {why}"):
        network.announce("c", "a")
    with pytest.raises(RefusedError, match=f"g1 {why}"):
        network.announce("a", "c")
    assert (a.sidecar(), a.device.life, a.device.guest) == (before, life, "here")


def during_restore(running: Running, save: bytes, check: Callable[[], None]) -> None:
    stream, tried = BytesIO(save), False

    def read_and_try(length: int) -> bytes:
        nonlocal tried
        # In the middle of its pages.
        if not tried and stream.tell() > len(save) // 2:
            tried = True
            check()
        return stream.read(length)

    running.instance.transfers.restore("g1", read_and_try)
    assert tried


def test_neither_made_anew_nor_pulled_from_meanwhile(network: Network) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    save = saved(a)
    network.announce("b", "a")
    with a.instance.transfers.save("g1") as saving:
        next(saving.blocks())
        check_nobody_takes_it(network, "is being saved")
    a.instance.swapoff("g1")
    b.instance.abandon("g1")
    network.announce("b", "a")
    during_restore(a, save, lambda: check_nobody_takes_it(network, "is being restored"))
    assert seen(a) == GUESTS
    # It is the life that b was told of, as if a guest had written it.
    assert seen(b) == GUESTS
    write(b, 7)
    assert a.device.guest == "gone"
    assert seen(b) == GUESTS


def test_taken_when_the_save_has_ended(network: Network) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    network.announce("b", "a")
    with a.instance.transfers.save("g1") as saving:
        blocks = saving.blocks()
        save = bytes(next(blocks))
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            write(b, 7)
        assert (a.device.guest, b.device.guest) == ("here", "coming")
        save += b"".join(bytes(block) for block in blocks)
    write(b, 7)
    assert (a.device.guest, b.device.guest) == ("gone", "here")
    assert seen(b) == GUESTS
    empty(network.hosts["c"])
    restore(network.hosts["c"], save)
    assert seen(network.hosts["c"]) == GUESTS


def test_life_ends_with_a_restore_that_was_cut_off(network: Network) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    save = saved(a)
    empty(a)
    network.announce("b", "a")
    life = a.device.life
    assert life
    cut_off(a, save)
    assert a.device.life == a.sidecar().life == 0
    assert a.device.stats()["unknown_pages"] == MIB // PAGE - 1
    restore(a, save)
    assert seen(a) == GUESTS
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            seen(b)
        write(b, 7)
    assert (a.device.guest, b.device.guest) == ("here", "here")
    assert UNKNOWN not in a.device.state_bytes(5, 2)


def cut_off(running: Running, save: bytes) -> None:
    """By a kill, with all of its pages there: nothing is undone."""
    stream, instance = BytesIO(save), running.instance

    def read_half(length: int) -> bytes:
        if stream.tell() > len(save) // 2:
            raise KilledError
        return stream.read(length)

    with (
        patch.object(instance.transfers, "undo", return_value=""),
        pytest.raises(RestoreFailedError),
    ):
        instance.transfers.restore("g1", read_half)
    assert instance.served["g1"].entry.state == "adopting"
    running.kill()
    running.open(known=False)


class KilledError(PreswapError):
    """The server, while it reads what it restores."""
