# SPDX-License-Identifier: BSD-3-Clause
"""A device that moves from one real server to another: docs/moving.md."""

import errno
import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import nbd
import pytest

from preswapd.preswap.files.sidecar import Sidecar
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, answered, connected, discard
from tests.conftest import StartServer
from tests.running import RunningServer, run, wait_for

MIB = 1 << 20
PAGES = 2048
LENGTH = PAGES * PAGE
TRIMMED = BEHIND_ZONE + LENGTH
# Fetched last: a slow pull has the first ones at once.
LAST = TRIMMED - PAGE


def contents(seed: int) -> bytes:
    """Of pages of which half compress."""
    source = random.Random(seed)
    return b"".join(
        source.randbytes(PAGE) if page % 2 else source.randbytes(64) * (PAGE // 64)
        for page in range(PAGES)
    )


BEFORE, NEWER = contents(1), contents(2)


class Pair:
    """`a`: its device g1 has BEFORE, partly on disk; `b`: nothing yet."""

    def __init__(self, a: RunningServer, b: RunningServer) -> None:
        self.a, self.b = a, b
        client = discard(connected(a, "g1"))
        client.pwrite(BEFORE[: LENGTH // 2], BEHIND_ZONE)
        client.flush()
        a.ctl("shrink", "0")
        client.pwrite(BEFORE[LENGTH // 2 :], BEHIND_ZONE + LENGTH // 2)
        self.old = client

    def announce(self, *options: str, check: bool = True) -> Any:
        return self.b.ctl(
            "create", "g1", "64M", "--from", self.a.nbd_uri("g1"), *options, check=check
        )

    def device(self, server: RunningServer) -> dict[str, Any]:
        found: dict[str, Any] = server.json_stats()["devices"]["g1"]
        return found


@pytest.fixture
def pair(start_server: StartServer) -> Pair:
    return Pair(start_server(devices={"g1": "64M"}), start_server(devices={}))


def fails(request: Any, number: int = errno.EIO) -> None:
    with pytest.raises(nbd.Error) as error:
        request()
    assert error.value.errnum == number


def touch(client: Any) -> None:
    """A change of the guest's, of a page behind all others."""
    client.pwrite(bytes(PAGE), TRIMMED + 4 * MIB)


def all_there(pair: Pair) -> None:
    pair.b.ctl("pull", "g1")
    assert pair.device(pair.b)["pending_pages"] == 0
    wait_for(lambda: pair.device(pair.a), lambda found: found["guest"] == "here")


# --- a move ---


def test_moves(pair: Pair) -> None:
    pair.announce()
    assert (pair.device(pair.a)["guest"], pair.device(pair.b)["guest"]) == ("here", "coming")
    guest = connected(pair.b, "g1")
    assert bytes(guest.pread(PAGE, 0)) == bytes(pair.old.pread(PAGE, 0))
    touch(guest)
    assert bytes(guest.pread(LENGTH, BEHIND_ZONE)) == BEFORE
    assert bytes(guest.pread(MIB, TRIMMED)) == bytes(MIB)
    all_there(pair)
    assert bytes(guest.pread(LENGTH, BEHIND_ZONE)) == BEFORE
    source, target = pair.device(pair.a), pair.device(pair.b)
    assert source["preswap_pages"] == 0
    assert source["unknown_pages"] > 12_000
    assert (target["guest"], target["source"]) == ("here", "")
    # Pages that the source has nothing of were not fetched.
    assert target["fetched_pages"] < 2 * PAGES
    assert not (pair.b.state_dir / "g1.source").exists()
    assert json.loads(pair.b.paths.sidecar("g1").read_text())["format"] == 1


def test_nothing_is_kept_before_the_guest_is_here(pair: Pair) -> None:
    """QEMU looks at the disk before; and a migration that fails goes on at the source."""
    pair.announce()
    guest = connected(pair.b, "g1")
    assert bytes(guest.pread(LENGTH, BEHIND_ZONE)) == BEFORE
    pair.old.pwrite(NEWER, BEHIND_ZONE)
    assert bytes(guest.pread(LENGTH, BEHIND_ZONE)) == NEWER
    target = pair.device(pair.b)
    assert (target["fetched_pages"], target["pending_pages"]) == (0, 64 * MIB // PAGE)
    assert pair.device(pair.a)["guest"] == "here"
    pair.old.pwrite(BEFORE, BEHIND_ZONE)
    touch(guest)
    assert bytes(guest.pread(LENGTH, BEHIND_ZONE)) == BEFORE


def test_source_serves_nobody_else_from_then_on(pair: Pair) -> None:
    pair.announce()
    guest = connected(pair.b, "g1")
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    touch(guest)
    assert pair.device(pair.a)["guest"] == "gone"
    fails(lambda: pair.old.pread(PAGE, BEHIND_ZONE))
    fails(lambda: pair.old.pwrite(bytes(PAGE), BEHIND_ZONE))
    fails(lambda: pair.old.pread(PAGE, 0))
    pair.a.kill()
    pair.a.start()
    back = connected(pair.a, "g1")
    fails(lambda: back.pread(PAGE, BEHIND_ZONE))
    fails(lambda: back.trim(PAGE, BEHIND_ZONE))
    done = pair.a.ctl("remove", "g1", "--yes", check=False)
    assert done.returncode == 4
    # And it is told nothing that came since, when it has been released.
    pair.b.ctl("pull", "g1", "--rate", "0")
    all_there(pair)
    fails(lambda: back.pread(PAGE, BEHIND_ZONE))


def test_list_shows_it_at_both_ends(pair: Pair) -> None:
    pair.announce()
    uri = pair.a.nbd_uri("g1")
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    assert f"(64M) of g1 are still on {uri}" in pair.b.ctl("list").stderr
    assert "none is kept" in pair.b.ctl("pull", "g1", "--no-wait").stdout
    touch(connected(pair.b, "g1"))
    assert "another host has taken g1" in pair.a.ctl("list").stderr
    row = pair.b.ctl("list", "-o", "GUEST,SOURCE", "--noheadings").stdout.split()
    assert row == ["here", uri]


# --- kills, and a source that is away ---


@pytest.mark.parametrize("who", ["a", "b"])
@pytest.mark.parametrize("end", [RunningServer.kill, RunningServer.stop])
def test_either_end_is_started_again(pair: Pair, who: str, end: Any) -> None:
    pair.announce()
    pair.b.ctl("pull", "g1", "--rate", "4M", "--no-wait")
    guest = connected(pair.b, "g1")
    guest.pwrite(NEWER[: 64 * PAGE], BEHIND_ZONE)
    assert bytes(guest.pread(64 * PAGE, BEHIND_ZONE + MIB)) == BEFORE[MIB : MIB + 64 * PAGE]
    server = getattr(pair, who)
    for _ in range(3):
        end(server)
        server.start()
    guest = connected(pair.b, "g1")
    assert bytes(guest.pread(LENGTH, BEHIND_ZONE)) == NEWER[: 64 * PAGE] + BEFORE[64 * PAGE :]
    all_there(pair)
    guest = connected(pair.b, "g1")
    assert bytes(guest.pread(LENGTH, BEHIND_ZONE)) == NEWER[: 64 * PAGE] + BEFORE[64 * PAGE :]
    assert bytes(guest.pread(MIB, TRIMMED)) == bytes(MIB)


def test_source_away(pair: Pair) -> None:
    pair.announce()
    guest = connected(pair.b, "g1")
    pair.a.kill()
    fails(lambda: guest.pread(PAGE, BEHIND_ZONE))
    fails(lambda: touch(guest))
    fails(lambda: guest.trim(PAGE, BEHIND_ZONE))
    assert pair.device(pair.b)["guest"] == "coming"
    pair.a.start()
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    wait_for(lambda: touched(guest), bool)
    pair.a.kill()
    guest.pwrite(NEWER[:PAGE], BEHIND_ZONE + LENGTH - PAGE)
    assert bytes(guest.pread(PAGE, BEHIND_ZONE + LENGTH - PAGE)) == NEWER[:PAGE]
    wait_for(
        lambda: pair.b.ctl("pull", "g1", "--no-wait").stdout, lambda said: "nothing comes" in said
    )
    pair.a.start()
    pair.b.ctl("pull", "g1", "--rate", "0")
    all_there(pair)
    assert bytes(guest.pread(LENGTH - PAGE, BEHIND_ZONE)) == BEFORE[:-PAGE]


def touched(client: Any) -> bool:
    try:
        touch(client)
    except nbd.Error:
        return False
    return True


def test_let_go_is_told_later(pair: Pair) -> None:
    """All is fetched, and the source is away when it is to hear of it."""
    pair.announce()
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    guest = connected(pair.b, "g1")
    touch(guest)
    assert bytes(guest.pread(LENGTH, BEHIND_ZONE)) == BEFORE
    pair.a.kill()
    # What the source has nothing of is trimmed by the guest.
    for at in range(0, 64 * MIB, 4 * MIB):
        guest.trim(4 * MIB, at)
    pair.b.ctl("pull", "g1", "--rate", "0", "--no-wait")
    wait_for(lambda: pair.device(pair.b)["pending_pages"], lambda pages: pages == 0)
    wait_for(lambda: Sidecar.read(pair.b.paths.sidecar("g1")).source, lambda source: source == 0)
    pair.b.kill()
    pair.b.start()
    assert Sidecar.read(pair.a.paths.sidecar("g1")).moved
    pair.a.start()
    wait_for(lambda: pair.device(pair.a)["guest"], lambda guest: guest == "here")
    assert pair.device(pair.a)["preswap_pages"] == 0


# --- lives ---


def test_pages_of_another_guest_are_never_fetched(pair: Pair) -> None:
    pair.announce()
    pair.old.shutdown()
    pair.a.ctl("swapoff", "g1", "--yes")
    stranger = connected(pair.a, "g1")
    stranger.pwrite(NEWER, BEHIND_ZONE)
    guest = connected(pair.b, "g1")
    fails(lambda: guest.pread(PAGE, BEHIND_ZONE))
    touch(guest)
    target = pair.device(pair.b)
    assert (target["guest"], target["source"], target["pending_pages"]) == ("here", "", 0)
    fails(lambda: guest.pread(PAGE, BEHIND_ZONE))
    assert pair.device(pair.a)["guest"] == "here"
    assert bytes(stranger.pread(LENGTH, BEHIND_ZONE)) == NEWER


def test_host_of_the_source_reboots(pair: Pair) -> None:
    pair.announce()
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    guest = connected(pair.b, "g1")
    touch(guest)
    pair.a.kill()
    pair.a.reboot()
    pair.a.start()
    wait_for(lambda: pair.device(pair.b)["pending_pages"], lambda pages: pages == 0)
    fails(lambda: guest.pread(PAGE, LAST))
    assert pair.device(pair.a)["guest"] == "here"


@pytest.mark.parametrize("is_saved", [True, False])
def test_host_of_the_target_reboots(pair: Pair, is_saved: bool) -> None:
    pair.announce()
    guest = connected(pair.b, "g1")
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    guest.pwrite(NEWER[:PAGE], BEHIND_ZONE)
    if is_saved:
        pair.b.ctl("sync")
    pair.b.kill()
    pair.b.reboot()
    pair.b.start()
    guest = connected(pair.b, "g1")
    if is_saved:
        assert bytes(guest.pread(LENGTH, BEHIND_ZONE)) == NEWER[:PAGE] + BEFORE[PAGE:]
    else:
        # The source has what was rewritten here, and it is older.
        fails(lambda: guest.pread(PAGE, BEHIND_ZONE))
        fails(lambda: guest.pread(PAGE, LAST))
    all_there(pair)


def test_there_and_back(pair: Pair) -> None:
    pair.announce()
    guest = connected(pair.b, "g1")
    guest.pwrite(NEWER, BEHIND_ZONE)
    all_there(pair)
    pair.old.shutdown()
    wait_for(lambda: pair.device(pair.a)["connections"], lambda number: number == 0)
    pair.a.ctl("create", "g1", "64M", "--from", pair.b.nbd_uri("g1"), "--yes")
    back = connected(pair.a, "g1")
    touch(back)
    pair.a.ctl("pull", "g1")
    assert bytes(back.pread(LENGTH, BEHIND_ZONE)) == NEWER


# --- refusals ---


def refused(server: RunningServer, uri: str, size: str = "64M") -> str:
    done = server.ctl("create", "g1", size, "--from", uri, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    return str(done.stderr)


def test_what_cannot_be_pulled_from(pair: Pair, start_server: StartServer) -> None:
    uri = pair.a.nbd_uri("g1")
    assert "give that size" in refused(pair.b, uri, "32M")
    assert pair.b.json_stats()["devices"] == {}
    assert "does not give" in refused(pair.b, pair.a.nbd_uri("g2"))
    third = start_server(devices={"g1": "64M"})
    pair.announce()
    assert "has not got all of its own pages" in refused(third, pair.b.nbd_uri("g1"))
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    touch(connected(pair.b, "g1"))
    assert "another host has taken it" in refused(third, uri)
    assert third.json_stats()["devices"]["g1"]["guest"] == "here"


def test_two_arrivals_of_one_life(pair: Pair, start_server: StartServer) -> None:
    third = start_server(devices={})
    pair.announce()
    third.ctl("create", "g1", "64M", "--from", pair.a.nbd_uri("g1"))
    touch(connected(pair.b, "g1"))
    late = connected(third, "g1")
    fails(lambda: late.pread(PAGE, BEHIND_ZONE))
    fails(lambda: touch(late))
    third.ctl("pull", "g1", "--abandon", "--yes")
    touch(late)
    fails(lambda: late.pread(PAGE, BEHIND_ZONE))


def test_nobody_there(pair: Pair) -> None:
    uri = pair.a.nbd_uri("g1")
    pair.a.stop()
    refused(pair.b, uri)


def test_no_uri(pair: Pair) -> None:
    for uri in ("g1", "http://a/g1", "nbd+unix:///g1", "nbds://a/g1"):
        done = pair.b.ctl("create", "g1", "64M", "--from", uri, check=False)
        assert done.returncode == 2, uri


def test_neither_saved_nor_restored(pair: Pair, start_server: StartServer, tmp_path: Path) -> None:
    file, other = tmp_path / "g1.swap", start_server(devices={"g1": "64M"})
    other.ctl("save", "g1", str(file))
    pair.announce()
    refuses_both(pair.b, file, "--abandon")
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    touch(connected(pair.b, "g1"))
    refuses_both(pair.b, file, "`preswapctl pull g1` waits")
    refuses_both(pair.a, file, "save it there")


def refuses_both(server: RunningServer, file: Path, way: str) -> None:
    before = file.read_bytes()
    for command in (("save", "g1", str(file), "--yes"), ("restore", "g1", str(file))):
        done = server.ctl(*command, check=False)
        assert (done.returncode, done.stdout) == (4, "")
        assert way in done.stderr
    assert file.read_bytes() == before


def test_swapoff_waits_for_the_pull(pair: Pair) -> None:
    pair.announce()
    done = pair.b.ctl("swapoff", "g1", "--yes", check=False)
    assert done.returncode == 4
    assert "--abandon" in done.stderr
    pair.b.ctl("pull", "g1", "--abandon", "--yes")
    pair.b.ctl("swapoff", "g1", "--yes")
    # The source was only asked.
    assert bytes(pair.old.pread(LENGTH, BEHIND_ZONE)) == BEFORE


def test_abandoned(pair: Pair) -> None:
    pair.announce()
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    guest = connected(pair.b, "g1")
    guest.pwrite(NEWER[:PAGE], BEHIND_ZONE)
    pair.a.kill()
    assert "were given up" in pair.b.ctl("pull", "g1", "--abandon", "--yes").stdout
    assert bytes(guest.pread(PAGE, BEHIND_ZONE)) == NEWER[:PAGE]
    fails(lambda: guest.pread(PAGE, LAST))
    assert pair.b.ctl("pull", "g1").stdout == "g1 has all its pages\n"
    assert pair.b.ctl("pull", "g1", "--abandon", check=False).returncode == 4
    pair.a.start()
    assert pair.device(pair.a)["guest"] == "gone"
    pair.a.ctl("swapoff", "g1", "--yes")
    assert pair.device(pair.a)["guest"] == "here"


def test_source_that_is_removed(pair: Pair) -> None:
    """Nobody there says that its pages are gone for good: another of that name may come."""
    pair.announce()
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    guest = connected(pair.b, "g1")
    guest.pwrite(NEWER[:PAGE], BEHIND_ZONE)
    pair.a.ctl("remove", "g1", "--force", "--yes")
    fails(lambda: guest.pread(PAGE, LAST))
    assert pair.device(pair.b)["pending_pages"]
    pair.b.ctl("pull", "g1", "--abandon", "--yes")
    fails(lambda: guest.pread(PAGE, LAST))
    assert bytes(guest.pread(PAGE, BEHIND_ZONE)) == NEWER[:PAGE]


def test_older_copy_of_the_state_directory(pair: Pair) -> None:
    """Put back while the host runs on, it would serve the guest its past."""
    pair.announce()
    sidecar = pair.a.paths.sidecar("g1")
    before = sidecar.read_bytes()
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    touch(connected(pair.b, "g1"))
    pair.a.kill()
    after = sidecar.read_bytes()
    sidecar.write_bytes(before)
    done = run(pair.a.command())
    assert done.returncode == 4
    assert "is older than the device" in done.stderr
    sidecar.write_bytes(after)
    pair.a.start()
    assert pair.device(pair.a)["guest"] == "gone"


def test_earlier_release_refuses_it(pair: Pair) -> None:
    """It knows format 1 alone, and would serve the guest its past."""
    pair.announce()
    for server in (pair.a, pair.b):
        assert json.loads(server.paths.sidecar("g1").read_text())["format"] == 2


def test_another_server_at_the_same_address(pair: Pair, start_server: StartServer) -> None:
    """That it has not got the pages says nothing."""
    other = start_server(devices={"g1": "64M"})
    address = pair.a.base / "address"
    address.symlink_to(pair.a.nbd_socket)
    uri = f"nbd+unix:///g1?socket={address}"
    pair.b.ctl("create", "g1", "64M", "--from", uri)
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    guest = connected(pair.b, "g1")
    address.unlink()
    address.symlink_to(other.nbd_socket)
    fails(lambda: touch(guest))
    address.unlink()
    address.symlink_to(pair.a.nbd_socket)
    touch(guest)
    address.unlink()
    address.symlink_to(other.nbd_socket)
    pair.b.restart()
    wait_for(lambda: pair.b.ctl("pull", "g1", "--no-wait").stdout, lambda said: "another" in said)
    address.unlink()
    address.symlink_to(pair.a.nbd_socket)
    all_there(pair)
    assert bytes(connected(pair.b, "g1").pread(LENGTH, BEHIND_ZONE)) == BEFORE


def test_source_that_hangs(pair: Pair) -> None:
    pair.announce()
    pair.b.ctl("pull", "g1", "--rate", "4K", "--no-wait")
    guest, other = connected(pair.b, "g1"), connected(pair.b, "g1")
    other.pwrite(NEWER[:PAGE], BEHIND_ZONE)
    pid = pair.a.json_stats()["server"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        answers: list[int] = []

        def ended(error: Any) -> int:
            answers.append(error.value)
            return 1

        guest.aio_pread(nbd.Buffer(PAGE), BEHIND_ZONE + LENGTH - PAGE, ended)
        assert bytes(other.pread(PAGE, BEHIND_ZONE)) == NEWER[:PAGE]
        assert pair.device(pair.b)["pending_pages"] > 0
        assert answers == []
        assert answered(guest, answers) == errno.EIO
    finally:
        os.kill(pid, signal.SIGCONT)
    pair.b.ctl("pull", "g1", "--rate", "0")
    all_there(pair)
