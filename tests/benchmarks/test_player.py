# SPDX-License-Identifier: BSD-3-Clause
"""The player notices each page that is not what it wrote last, on a real server."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.aging import player
from benchmarks.aging.player import Played, Player, PlayerError
from preswapd.tmem import PERSISTENT, Host
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, clients
from tests.conftest import StartServer
from tests.running import RunningServer, wait_until

# Pages 0 and 1: one repeated value, and one that compresses to about 1,600 bytes.
WRITTEN = "0 W 0 2 0064\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return player.build(tmp_path_factory.mktemp("player"))


@pytest.fixture
def playing(program: Path, server: RunningServer) -> Iterator[Player]:
    with Player(program, server.nbd_socket, "g1") as found:
        yield found


@pytest.fixture
def other(server: RunningServer, playing: Player) -> Iterator[Any]:
    """Another client of the same disk, which has come later."""
    wait_until(
        lambda: server.json_stats()["devices"]["g1"]["connections"] == 1, "the player to connect"
    )
    with clients() as connect:
        yield connect(server)


def at(page: int) -> int:
    return BEHIND_ZONE + page * PAGE


def test_pages_come_back_as_written(playing: Player) -> None:
    again = "0 R 0 2\n0 W 1 1 ff\n0 R 1 1\n0 T 0 1\n0 R 0 2\n"
    seen = playing.play(["# a comment\n", WRITTEN, *again.splitlines(keepends=True)])
    assert (seen.requests, seen.read, seen.written, seen.trimmed) == (6, 5, 3, 1)
    # What it knows of the disk stays from one file to the next.
    assert playing.play(["0 R 0 2\n"]).read == 2


def test_times_are_divided_by_the_speed(program: Path, server: RunningServer) -> None:
    with Player(program, server.nbd_socket, "g1", speed=2.0) as playing:
        seen = playing.play(["0 W 0 1 00\n", *["100 R 0 1\n"] * 10])
    assert seen.seconds >= 0.05
    assert seen.read_us[0] <= seen.read_us[1] <= seen.read_us[2]


def test_another_page_is_noticed(playing: Player, other: Any) -> None:
    playing.play([WRITTEN])
    other.pwrite(bytes(other.pread(PAGE, at(0))), at(1))
    with pytest.raises(PlayerError, match=r"^page 1 is not version 2 of it: .* 1 of page 0$"):
        playing.play(["0 R 0 2\n"])


def test_older_page_is_noticed(playing: Player, other: Any) -> None:
    playing.play([WRITTEN])
    older = bytes(other.pread(PAGE, at(1)))
    playing.play(["0 W 1 1 64\n"])
    other.pwrite(older, at(1))
    with pytest.raises(PlayerError, match=r"^page 1 is not version 3 of it: .* 2 of page 1$"):
        playing.play(["0 R 1 1\n"])


@pytest.mark.parametrize("page", [0, 1])
def test_byte_in_the_middle_is_noticed(playing: Player, other: Any, page: int) -> None:
    playing.play([WRITTEN])
    found = other.pread(PAGE, at(page))
    found[2000] ^= 1
    other.pwrite(bytes(found), at(page))
    with pytest.raises(PlayerError, match=f"^page {page} is not version"):
        playing.play(["0 R 0 2\n"])


def test_zeros_are_noticed(playing: Player, other: Any) -> None:
    playing.play([WRITTEN])
    other.trim(PAGE, at(1))
    with pytest.raises(PlayerError, match=r"^page 1 is not version 2 of it"):
        playing.play(["0 R 1 1\n"])


def test_trimmed_page_that_stayed_is_noticed(playing: Player, other: Any) -> None:
    playing.play([WRITTEN, "0 T 1 1\n"])
    other.pwrite(bytes(PAGE - 1) + b"\1", at(1))
    with pytest.raises(PlayerError, match=r"^page 1 is not version 0 of it"):
        playing.play(["0 R 1 1\n"])


def test_error_of_the_disk_is_noticed(playing: Player) -> None:
    """Nobody has written or trimmed the page."""
    with pytest.raises(PlayerError, match=r"^reading of pages 7 to 7: "):
        playing.play(["0 R 7 1\n"])


@pytest.mark.parametrize("line", ["what\n", "0 R 100000 1\n", "0 W 0 2 64\n", "0 R 0 0\n"])
def test_what_is_no_request_is_named(playing: Player, line: str) -> None:
    with pytest.raises(PlayerError, match=line.strip()):
        playing.play([line])


def test_pages_compress_to_the_size_asked_for(
    program: Path, start_server: StartServer, tmp_path: Path
) -> None:
    """So a recording's sizes are those of the pages that are replayed."""
    server = start_server(extra=["--compress=none"])
    with Player(program, server.nbd_socket, "g1") as playing:
        playing.play([f"0 W {size} 1 {size:02x}\n" for size in range(256)])
    with clients() as connect:
        seen = connect(server).pread(256 * PAGE, at(0))
    with closing(Host(tmp_path / "arena", limit=32 << 20, create=True)) as host:
        pool = host.new_pool(flags=PERSISTENT)
        sizes = []
        for size in range(256):
            page = bytes(seen[size * PAGE : (size + 1) * PAGE])
            before = host.stats()["compr_data_size"]
            assert host.put_page(pool, 1, size, page, compress="lz4")
            sizes.append(host.stats()["compr_data_size"] - before)
        assert host.stats()["same_filled_pages"] == 1
    # The smallest that such a page can be is some 45 bytes.  In long ones LZ4 looks at places that
    # lie ever farther apart.
    off = [sizes[size] - (16 * size - 8) for size in range(4, 255)]
    assert max(map(abs, off)) <= 64
    assert abs(sum(off)) / len(off) <= 8
    assert (sizes[0], sizes[255]) == (8, PAGE)


def test_line_of_the_player_is_understood() -> None:
    assert player.played("1.5 0.25 6 5 3 1 1 2 3 4 5 6\n") == Played(
        1.5, 0.25, 6, 5, 3, 1, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    )
