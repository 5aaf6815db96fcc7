# SPDX-License-Identifier: BSD-3-Clause
"""Opening, closing and misuse of a host."""

from pathlib import Path

import pytest

from preswapd.tmem._tmem import Host
from tests.tmem.pages import make_page, read_page

MIB = 1 << 20
PAGE = make_page("text", 1)


@pytest.fixture
def left(shm: Path) -> Path:
    """An arena with one page, whose process is gone."""
    host = Host(shm / "arena", MIB, create=True, boot_id="boot")
    host.put_page(host.new_pool(), 0, 0, PAGE)
    host.close()
    return shm / "arena"


def test_unrecovered_arena_takes_no_page(left: Path) -> None:
    """It would be put over the pages that nobody has found yet."""
    host = Host(left, MIB, create=False)
    with pytest.raises(ValueError, match="recovered first"):
        host.put_page(0, 0, 1, PAGE)
    host.recover()
    assert read_page(host, 0, 0, 0) == PAGE


def test_recovered_once(left: Path) -> None:
    host = Host(left, MIB, create=False)
    host.recover()
    with pytest.raises(ValueError, match="recovered once"):
        host.recover()


def test_fresh_arena_is_not_recovered(host: Host) -> None:
    with pytest.raises(ValueError, match="recovered once"):
        host.recover()


def test_boot_id_and_uuid_stay(left: Path) -> None:
    first = Host(left, MIB, create=False)
    uuid = first.uuid
    first.close()
    again = Host(left, MIB, create=False)
    assert (again.boot_id, again.uuid) == ("boot", uuid)


def test_closed_host(left: Path) -> None:
    host = Host(left, MIB, create=False)
    host.close()
    host.close()
    with pytest.raises(ValueError, match="closed"):
        host.put_page(0, 0, 0, PAGE)
    with pytest.raises(ValueError, match="closed"):
        host.stats()


@pytest.mark.parametrize("pool", [-1, 1, 64, 1 << 32, 1 << 70])
def test_unknown_pool(host: Host, pool: int) -> None:
    host.new_pool()
    with pytest.raises(KeyError):
        host.get_page(pool, 0, 0, bytearray(4096))


@pytest.mark.parametrize(("obj", "index"), [(-1, 0), (1 << 64, 0), (0, -1)])
def test_handles_out_of_range(host: Host, obj: int, index: int) -> None:
    with pytest.raises(ValueError, match="64-bit number"):
        host.put_page(host.new_pool(), obj, index, PAGE)


def test_get_into_a_short_buffer(host: Host) -> None:
    with pytest.raises(ValueError, match="4096"):
        host.get_page(host.new_pool(), 0, 0, bytearray(4095))
