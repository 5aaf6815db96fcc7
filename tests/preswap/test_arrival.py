# SPDX-License-Identifier: BSD-3-Clause
"""A device that is made from another host's, over whatever was in it; who gives pages to whom."""

import errno
import os
from collections.abc import Iterator
from unittest.mock import Mock, patch

import pytest

from preswapd.errors import RefusedError
from preswapd.preswap import renewal
from preswapd.preswap.device._device import FLAG_FUA
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.preswap.moving import moves
from preswapd.preswap.moving.link import Link
from preswapd.preswap.moving.names import LIFE, PULL, TAKE, Wanted, answered
from preswapd.preswap.moving.note import Note, read_note
from preswapd.units import PAGE_SIZE as PAGE
from tests.preswap.disk_model import page_of
from tests.preswap.network import Network, three_hosts
from tests.preswap.running import MIB, Running, pages_read, read
from tests.preswap.test_life import small_zone
from tests.preswap.zones import with_zone


@pytest.fixture
def network() -> Iterator[Network]:
    with three_hosts() as made:
        yield made


def fails(request: object, number: int = errno.EIO) -> None:
    assert callable(request)
    with pytest.raises(OSError, match=os.strerror(number)):
        request()


def test_nothing_of_an_earlier_stay_is_left(network: Network) -> None:
    """Also in the zone, which has what the disk file has once the source is given up."""
    a, b = network.hosts["a"], network.hosts["b"]
    old = b.connect()
    for page in (0, 3, 4):
        old.pwrite(page_of(page), page * PAGE, FLAG_FUA if page == 4 else 0)
    old.close()
    network.announce("b", "a")
    a.kill()
    guest = b.connect()
    for page in (0, 3, 4):
        fails(lambda at=page: read(guest, at * PAGE, PAGE))
    assert b.instance.abandon("g1") == MIB // PAGE
    assert read(guest, 0, PAGE).endswith(b"SWAPSPACE2")
    for page in (3, 4):
        fails(lambda at=page: read(guest, at * PAGE, PAGE))


def test_arrival_that_failed_is_given_up(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of before is seen, and what is written then stays."""
    b = network.hosts["b"]
    b.connect().pwrite(page_of(7), 5 * PAGE)
    with monkeypatch.context() as patched:
        patched.setattr(renewal, "make_zone", full_disk)
        with pytest.raises(RefusedError, match="g1 cannot be made anew: No space left"):
            network.announce("b", "a")
    fails(lambda: read(b.connect(), 5 * PAGE, PAGE))
    b.instance.abandon("g1")
    fails(lambda: read(b.connect(), 5 * PAGE, PAGE))
    b.connect().pwrite(page_of(8), 6 * PAGE)
    for _ in range(2):
        assert b.sidecar() == b.sidecar().settled()
        assert read(b.connect(), 6 * PAGE, PAGE) == page_of(8)
        fails(lambda: read(b.connect(), 5 * PAGE, PAGE))
        b.kill()
        b.open()


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_another_life_is_nobody_elses(network: Network) -> None:
    """Also when what came later in the same device is announced, too."""
    a, b, c = (network.hosts[name] for name in "abc")
    network.announce("b", "a")
    a.instance.swapoff("g1")
    a.connect().pwrite(page_of(7), 5 * PAGE)
    network.announce("c", "a")
    assert read(c.connect(), 5 * PAGE, PAGE) == page_of(7)
    guest = b.connect()
    fails(lambda: read(guest, 5 * PAGE, PAGE))
    guest.pwrite(page_of(8), 6 * PAGE)
    assert (b.device.guest, a.device.guest) == ("here", "here")
    fails(lambda: read(guest, 5 * PAGE, PAGE))
    assert b.sidecar().source == 0
    # Its other arrival is not harmed.
    c.connect().pwrite(page_of(9), 6 * PAGE)
    assert (c.device.guest, a.device.guest) == ("here", "gone")


@pytest.mark.parametrize("how", ["swapoff", "mkswap", "remove"])
def test_life_ends(network: Network, how: str) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    a.connect().pwrite(page_of(7), 5 * PAGE)
    network.announce("b", "a")
    life = a.device.life
    assert life == a.sidecar().life != 0
    if how == "swapoff":
        a.instance.swapoff("g1")
    else:
        getattr(a.instance, how)("g1", force=True)
    if how == "remove":
        a.instance.create("g1", MIB)
    assert a.device.life == a.sidecar().life == 0
    with pytest.raises(OSError, match=os.strerror(errno.ESHUTDOWN)):
        a.instance.origin.connect(Wanted("g1", PULL, life, 5))
    fails(lambda: read(b.connect(), 5 * PAGE, PAGE))


def asked(running: Running, wanted: Wanted) -> dict[str, object]:
    with_answer = running.instance.origin.connect(wanted)
    content = bytearray(with_answer.size)
    with_answer.pread(content, 0)
    return answered(bytes(content))


def test_life_is_drawn_once_and_kept(network: Network) -> None:
    a = network.hosts["a"]
    assert a.device.life == 0
    first = asked(a, Wanted("g1", LIFE))
    assert asked(a, Wanted("g1", LIFE)) == first
    a.stop()
    a.open()
    assert asked(a, Wanted("g1", LIFE)) == first
    assert int(str(first["life"]), 16) == a.device.life


def test_taken_once(network: Network) -> None:
    a = network.hosts["a"]
    life = int(str(asked(a, Wanted("g1", LIFE))["life"]), 16)
    assert asked(a, Wanted("g1", TAKE, life + 1, 5))["answer"] == "other life"
    assert a.device.guest == "here"
    for _ in range(2):
        assert asked(a, Wanted("g1", TAKE, life, 5))["answer"] == "done"
        assert asked(a, Wanted("g1", TAKE, life, 6))["answer"] == "elsewhere"
        a.kill()
        a.open()
    assert a.device.guest == "gone"
    with pytest.raises(RefusedError, match="another host has taken"):
        a.instance.remove("g1")


def test_clean_source_that_was_taken_outlives_a_reboot(network: Network) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    a.connect().pwrite(page_of(7), 5 * PAGE)
    network.announce("b", "a")
    guest = b.connect()
    guest.pwrite(page_of(8), 6 * PAGE)
    assert a.instance.begin_sync().wait().complete
    a.stop()
    a.reboot()
    a.open()
    assert a.device.guest == "gone"
    fails(lambda: read(a.connect(), 5 * PAGE, PAGE))
    assert read(guest, 5 * PAGE, 2 * PAGE) == page_of(7) + page_of(8)


def test_pages_that_the_source_has_lost(network: Network) -> None:
    """By what its map says, and not because a read failed once."""
    a, b = network.hosts["a"], network.hosts["b"]
    network.announce("b", "a")
    guest = b.connect()
    guest.pwrite(page_of(8), 6 * PAGE)
    pull = b.instance.moves.pulls["g1"]
    a.device.renew(pending=False)  # whatever befell it
    fails(lambda: read(guest, 5 * PAGE, PAGE))
    assert b.device.stats()["pending_pages"] == MIB // PAGE - 2  # but for the zone
    assert pull.turn()
    assert b.device.stats()["pending_pages"] == 0
    assert b.device.stats()["unknown_pages"] == MIB // PAGE - 2
    fails(lambda: read(guest, 5 * PAGE, PAGE))


# --- the scan zone, which has no map ---


@pytest.fixture
def zoned() -> Iterator[Network]:
    """With a zone in several places, of which the guest has written some."""
    with with_zone(small_zone), three_hosts() as made:
        a = made.hosts["a"].connect()
        for page in IN_ZONE[:-1]:
            a.pwrite(page_of(page), page * PAGE)
        yield made


IN_ZONE = [page for part in small_zone(MIB // PAGE) for page in part]


def zone_of(running: Running) -> list[bytes | None]:
    return [pages_read(running.connect())[page] for page in IN_ZONE]


WRITTEN = [*map(page_of, IN_ZONE[:-1]), bytes(PAGE)]


@pytest.mark.parametrize("how", ["kept on", "rebooted", "given up"])
def test_zone_is_here_before_the_first_change(zoned: Network, how: str) -> None:
    """Later nobody could tell what of it was fetched, and the rest would be zeros."""
    b = zoned.hosts["b"]
    zoned.announce("b", "a")
    b.connect().pwrite(page_of(8), 6 * PAGE)
    zoned.cut_off.add("a")
    if how == "rebooted":
        b.kill()
        b.reboot()
        b.open()
    elif how == "given up":
        b.instance.abandon("g1")
    assert zone_of(b) == WRITTEN


def test_zone_that_cannot_be_had_keeps_the_guest_waiting(
    zoned: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = zoned.hosts["b"]
    zoned.announce("b", "a")
    with monkeypatch.context() as patched:
        patched.setattr(Link, "read", unreachable)
        fails(lambda: b.connect().pwrite(page_of(8), 6 * PAGE))
    assert (b.device.guest, b.sidecar().taken) == ("coming", False)
    for _ in range(2):
        b.kill()
        b.open()
        b.connect().pwrite(page_of(8), 6 * PAGE)
    assert zone_of(b) == WRITTEN


def unreachable(*_: object) -> bytes:
    raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))


def test_page_of_the_zone_that_the_source_cannot_read(
    zoned: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps nobody from coming, and is fetched when it can be."""
    b, read_there, bad = zoned.hosts["b"], Link.read, IN_ZONE[2]

    def damaged(link: Link, first: int, pages: int) -> bytes:
        if first <= bad < first + pages:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_there(link, first, pages)

    zoned.announce("b", "a")
    with monkeypatch.context() as patched:
        patched.setattr(Link, "read", damaged)
        b.connect().pwrite(page_of(8), 6 * PAGE)
        assert zone_of(b) == [*WRITTEN[:2], None, *WRITTEN[3:]]
    assert zone_of(b) == WRITTEN


def test_zone_is_synced_before_the_source_drops_it(network: Network) -> None:
    """What the guest had flushed over there must not end with a power cut here."""
    b, order = network.hosts["b"], []
    network.announce("b", "a")
    b.connect().pwrite(page_of(8), 6 * PAGE)
    pull = b.instance.moves.pulls["g1"]
    with patch.object(pull, "served", Mock(wraps=pull.served)) as served:
        served.device.sync.side_effect = lambda: order.append("synced")
        served.record.note.side_effect = lambda **_: order.append("let go")
        pull.let_go()
    assert order == ["synced", "let go"]


def test_taken_source_shows_nobody_its_past_after_a_reboot(zoned: Network) -> None:
    a, b = zoned.hosts["a"], zoned.hosts["b"]
    zoned.announce("b", "a")
    b.connect().pwrite(page_of(8), 6 * PAGE)
    a.kill()
    a.reboot()
    for _ in range(2):
        a.open()
        assert a.device.guest == "here"
        found = zone_of(a)
        assert (found[0] or b"").endswith(b"SWAPSPACE2")
        assert set(found[1:]) == {bytes(PAGE)}
        assert a.sidecar() == a.sidecar().settled()
        a.kill()


@pytest.mark.parametrize("reboots", [False, True])
def test_older_sidecar_of_a_guest_that_was_coming(network: Network, reboots: bool) -> None:
    """Put back, it would fetch what was rewritten here."""
    b = network.hosts["b"]
    network.announce("b", "a")
    path = b.paths.sidecar("g1")
    before = path.read_bytes()
    b.connect().pwrite(page_of(8), 6 * PAGE)
    b.kill()
    path.write_bytes(before)
    if reboots:
        b.reboot()
    with pytest.raises(RefusedError, match="g1"):
        b.open()


# --- what an operator may do wrong, and what may fail ---


def test_from_itself(network: Network) -> None:
    """It would drop what it is to be made of."""
    a = network.hosts["a"]
    a.connect().pwrite(page_of(7), 5 * PAGE)
    with pytest.raises(RefusedError, match="is g1 itself"):
        network.announce("a", "a")
    assert read(a.connect(), 5 * PAGE, PAGE) == page_of(7)
    assert a.device.guest == "here"


def test_new_device_goes_again_where_it_cannot_arrive(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = network.hosts["b"]
    with monkeypatch.context() as patched:
        patched.setattr(renewal, "make_zone", full_disk)
        with pytest.raises(RefusedError, match="g2 cannot be made anew: No space left"):
            b.instance.create("g2", MIB, source=network.uri("a"))
    assert "g2" not in b.instance.devices
    assert not list(b.paths.state_dir.glob("g2*"))
    b.instance.create("g2", MIB, source=network.uri("a"))


def test_device_made_anew_keeps_its_compression_unless_another_is_named(network: Network) -> None:
    b = network.hosts["b"]
    before = b.device.compress
    network.announce("b", "a")
    assert b.device.compress == before != "none"
    b.instance.create("g1", MIB, "none", source=network.uri("a"), force=True)
    assert b.device.compress == "none"
    b.reboot()
    b.open()
    assert b.device.compress == "none"


def test_default_export_is_a_device_of_that_moment(network: Network) -> None:
    """A second one over there must not keep the pages from coming."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(moves, "life_of", lambda place: {**LIVES, "device": "g 1"})
        source = moves.announced("nbd+unix://?socket=/run/a.sock", MIB)
    assert source.place.uri == "nbd+unix:///g%201?socket=/run/a.sock"
    assert source.place.export == "g 1"


LIVES: dict[str, object] = {"life": "77", "size": MIB, "refused": None, "home": "x"}


def test_arrival_that_changed_nothing_leaves_the_one_before(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = network.hosts["a"], network.hosts["b"]
    a.connect().pwrite(page_of(7), 5 * PAGE)
    network.announce("b", "a")
    with monkeypatch.context() as patched:
        patched.setattr(Note, "write", full_disk)
        with pytest.raises(RefusedError, match="g1 cannot be made anew: No space left"):
            network.announce("b", "c")
    assert read(b.connect(), 5 * PAGE, PAGE) == page_of(7)
    b.connect().pwrite(page_of(8), 6 * PAGE)
    assert a.device.guest == "gone"


@pytest.mark.parametrize("uri", ["", "nbdx://hosta/g1", "nbds://hosta/g1"])
def test_note_that_names_no_place(network: Network, uri: str) -> None:
    """The server serves its other guests; this device's pages can be given up."""
    b = network.hosts["b"]
    network.announce("b", "a")
    path = b.paths.source("g1")
    note = read_note(path)
    assert note is not None
    b.kill()
    note._replace(uri=uri).write(path)
    b.open()
    assert "cannot be fetched" in b.log[-1]
    status = b.instance.pull_status("g1")
    assert (status.complete, status.pending) == (False, MIB // PAGE)
    assert "--abandon" in str(status.trouble)
    fails(lambda: read(b.connect(), 5 * PAGE, PAGE))
    assert b.instance.abandon("g1") == MIB // PAGE


def test_map_that_was_saved_while_it_was_changed_is_not_believed(network: Network) -> None:
    """A stop does not wait for ever for another host's wish."""
    a = network.hosts["a"]
    a.connect().pwrite(page_of(7), 5 * PAGE, FLAG_FUA)
    record, device = a.instance.served["g1"].record, a.device
    states = device.state_bytes()

    def changing() -> Iterator[bytes]:
        record.change(life=0)
        yield states

    with pytest.raises(OSError, match="changed as a whole"):
        record.save(changing())
    record.change(renewing=True)
    with pytest.raises(OSError, match="changed as a whole"):
        record.save([states])
    assert not Sidecar.read(a.paths.sidecar("g1")).clean


def test_start_that_finishes_it_marks_the_device(network: Network) -> None:
    """Else the map that was saved before would be believed after a reboot."""
    a = network.hosts["a"]
    a.connect().pwrite(page_of(7), 5 * PAGE, FLAG_FUA)
    assert a.instance.begin_sync().wait().complete
    a.instance.served["g1"].record.note(renewing=True)
    assert a.sidecar().clean
    a.kill()
    a.open()
    assert (a.sidecar().clean, a.sidecar().renewing) == (False, False)
    a.connect().pwrite(page_of(8), 6 * PAGE)
    a.kill()
    a.reboot()
    a.open()
    fails(lambda: read(a.connect(), 5 * PAGE, PAGE))
