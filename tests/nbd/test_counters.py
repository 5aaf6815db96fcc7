# SPDX-License-Identifier: BSD-3-Clause
"""The counters tell the truth: known requests, and what they must have counted."""

import random
from typing import Any

import nbd
import pytest

from preswapd.preswap.files.zone import zone
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect, discard
from tests.conftest import StartServer
from tests.nbd.conftest import MIB
from tests.running import RunningServer

NOISE = random.Random(3).randbytes(8 * MIB)
TEXT = b"".join(f"page {page:11}".encode() * 256 for page in range(256))

Json = dict[str, Any]


def device(server: RunningServer, name: str = "g1") -> Json:
    counters: Json = server.json_stats()["devices"][name]
    return counters


def test_pages_that_tmem_takes(server: RunningServer, connect: Connect) -> None:
    client = connect(server)
    client.pwrite(TEXT, BEHIND_ZONE)
    stats = server.settled_stats()
    counters = stats["devices"]["g1"]
    assert (counters["succ_stores"], counters["failed_stores"]) == (256, 0)
    assert (counters["preswap_pages"], counters["write_requests"]) == (256, 1)
    assert stats["tmem"]["stored_pages"] == stats["tmem"]["good_puts"] == 256
    assert stats["tmem"]["compr_data_size"] < MIB // 10


def test_requests_are_clients_alone(server: RunningServer) -> None:
    before = device(server)
    server.ctl("mkswap", "g1", "--yes")
    server.ctl("swapoff", "g1", "--yes")
    keys = ("read_requests", "write_requests", "trim_requests")
    assert {key: device(server)[key] for key in keys} == {key: before[key] for key in keys}


@pytest.mark.parametrize("pages", [1, 2, 3, 16])
def test_pages_that_tmem_rejects(start_server: StartServer, connect: Connect, pages: int) -> None:
    """Each page once, also of the small requests that try without waiting first."""
    server = start_server(pool_size="4M", extra=["--writeback-room=off"])
    client = connect(server)
    step = pages * PAGE
    writes = len(NOISE) // step
    for at in range(0, writes * step, step):
        client.pwrite(NOISE[at : at + step], BEHIND_ZONE + at)
    stats = server.json_stats()
    counters = stats["devices"]["g1"]
    assert counters["succ_stores"] + counters["failed_stores"] == writes * pages
    assert counters["succ_stores"] == counters["preswap_pages"] == stats["tmem"]["good_puts"]
    assert counters["failed_stores"] == counters["disk_writes"] == stats["tmem"]["no_mem_puts"]
    assert stats["tmem"]["puts"] == writes * pages
    assert counters["disk_pages"] == counters["failed_stores"] + 1
    assert counters["write_requests"] == writes


@pytest.mark.parametrize("pages", [1, 2, 16])
def test_loads_and_disk_reads_add_up(
    start_server: StartServer, connect: Connect, pages: int
) -> None:
    # Else pages that were read from tmem may go to the disk before the counters are looked at.
    server = start_server(pool_size="4M", extra=["--writeback-room=off"])
    client = connect(server)
    client.pwrite(NOISE, BEHIND_ZONE)
    step = pages * PAGE
    for at in range(0, len(NOISE), step):
        client.pread(step, BEHIND_ZONE + at)
    counters = device(server)
    assert counters["loads"] == counters["preswap_pages"]
    assert counters["disk_reads"] == counters["disk_pages"] - 1
    assert counters["read_requests"] == len(NOISE) // step


def test_overwritten_pages_are_replaced(server: RunningServer, connect: Connect) -> None:
    client = connect(server)
    client.pwrite(TEXT, BEHIND_ZONE)
    client.pwrite(TEXT[::-1], BEHIND_ZONE)
    tmem = server.json_stats()["tmem"]
    assert (tmem["dup_puts_replaced"], tmem["stored_pages"], tmem["puts"]) == (256, 256, 512)


def test_same_filled_and_incompressible_pages(server: RunningServer, connect: Connect) -> None:
    client = connect(server)
    client.pwrite(b"same-8by" * 512 * 10, BEHIND_ZONE)
    client.pwrite(NOISE[: 20 * PAGE], BEHIND_ZONE + 100 * PAGE)
    tmem = server.json_stats()["tmem"]
    assert (tmem["same_filled_pages"], tmem["huge_pages"], tmem["stored_pages"]) == (10, 20, 30)


@pytest.mark.parametrize("name", ["trim", "zero"])
def test_trimmed_pages(server: RunningServer, connect: Connect, name: str) -> None:
    client = connect(server)
    client.pwrite(TEXT, BEHIND_ZONE)
    getattr(client, name)(100 * PAGE, BEHIND_ZONE)
    stats = server.json_stats()
    counters = stats["devices"]["g1"]
    assert (counters["trims"], counters["invalidates"]) == (100, 100)
    assert counters["preswap_pages"] == stats["tmem"]["stored_pages"] == 156
    assert stats["tmem"]["flushes_found"] == 100


def test_reads_of_holes_load_nothing(server: RunningServer, connect: Connect) -> None:
    discard(connect(server)).pread(MIB, BEHIND_ZONE)
    counters = device(server)
    assert (counters["loads"], counters["disk_reads"], counters["read_requests"]) == (0, 0, 1)


def test_header_and_fua_are_disk_pages_and_no_failed_stores(
    server: RunningServer, connect: Connect
) -> None:
    client = connect(server)
    client.pwrite(client.pread(PAGE, 0), 0)
    client.pwrite(TEXT[: 4 * PAGE], BEHIND_ZONE, flags=1)
    counters = device(server)
    assert (counters["disk_pages"], counters["disk_writes"]) == (5, 5)
    assert (counters["succ_stores"], counters["failed_stores"]) == (0, 0)


def test_scan_zone_is_on_disk_and_counts_only_the_header(
    server: RunningServer, connect: Connect
) -> None:
    client = connect(server)
    client.pwrite(TEXT[: 100 * PAGE], PAGE)
    counters = device(server)
    assert (counters["disk_pages"], counters["disk_writes"]) == (1, 100)
    assert (counters["succ_stores"], counters["failed_stores"]) == (0, 0)
    client.pread(100 * PAGE, PAGE)
    counters = device(server)
    assert (counters["disk_reads"], counters["loads"]) == (100, 0)
    client.trim(50 * PAGE, PAGE)
    counters = device(server)
    assert (counters["trims"], counters["disk_pages"], counters["preswap_pages"]) == (50, 1, 0)


def test_unknown_pages_and_reads_of_them(server: RunningServer, connect: Connect) -> None:
    client = connect(server)
    pages = client.get_size() // PAGE
    born = device(server)
    assert born["unknown_pages"] == pages - sum(len(part) for part in zone(pages))
    for request, *arguments in (
        (client.pread, PAGE, BEHIND_ZONE),
        (client.pread, 20 * PAGE, BEHIND_ZONE - 7),
        (client.pwrite, b"a part", BEHIND_ZONE + 9),
        (client.zero, 9, BEHIND_ZONE + 9),
    ):
        with pytest.raises(nbd.Error, match="EIO"):
            request(*arguments)
    counters = device(server)
    assert (counters["unknown_reads"], counters["lost_reads"]) == (4, 0)
    assert counters["unknown_pages"] == born["unknown_pages"]
    client.pwrite(TEXT[:PAGE], BEHIND_ZONE)
    client.trim(2 * PAGE, BEHIND_ZONE + PAGE)
    client.zero(3 * PAGE, BEHIND_ZONE + 3 * PAGE)
    counters = device(server)
    assert counters["unknown_pages"] == born["unknown_pages"] - 6
    assert not any(client.pread(5 * PAGE, BEHIND_ZONE + PAGE))
    assert device(server)["unknown_reads"] == 4
    discard(client)
    counters = device(server)
    assert counters["unknown_pages"] == 0
    assert (counters["quarantined"], counters["quarantined_reads"]) == (False, 0)


@pytest.mark.parametrize("pool", ["4M", "32M"])
def test_memory_is_what_the_arena_occupies(
    start_server: StartServer, connect: Connect, pool: str
) -> None:
    server = start_server(pool_size=pool)
    connect(server).pwrite(NOISE + TEXT, BEHIND_ZONE)
    tmem = server.json_stats()["tmem"]
    assert tmem["mem_used_total"] == server.arena.stat().st_blocks * 512
    assert tmem["mem_used_total"] <= tmem["mem_used_max"] <= tmem["mem_limit"]
    assert tmem["orig_data_size"] == PAGE * tmem["stored_pages"]


def test_vm_preswap_is_the_sum_of_the_devices(start_server: StartServer, connect: Connect) -> None:
    server = start_server(devices={"g1": "16M", "g2": "16M"})
    connect(server, "g1").pwrite(TEXT, BEHIND_ZONE)
    connect(server, "g2").pwrite(TEXT[: 50 * PAGE], BEHIND_ZONE)
    stats = server.json_stats()
    pages = [counters["preswap_pages"] for counters in stats["devices"].values()]
    assert pages == [256, 50]
    assert stats["tmem"]["stored_pages"] == 306
    assert server.ctl("sysctl", "vm.preswap").stdout == "vm.preswap = 306\n"


def test_shrink_counts_what_it_moves(server: RunningServer, connect: Connect) -> None:
    connect(server).pwrite(TEXT, BEHIND_ZONE)
    server.ctl("sysctl", "vm.preswap=0")
    counters = device(server)
    assert (counters["written_back_pages"], counters["disk_writes"]) == (256, 256)
    assert (counters["preswap_pages"], counters["disk_pages"]) == (0, 257)


def test_gauges_outlive_a_kill_and_counters_begin_anew(
    start_server: StartServer, connect: Connect
) -> None:
    server = start_server(pool_size="4M", extra=["--writeback-room=off"])
    connect(server).pwrite(NOISE, BEHIND_ZONE)
    before = server.json_stats()
    server.kill()
    server.start()
    after = server.json_stats()
    for gauge in ("preswap_pages", "disk_pages"):
        assert after["devices"]["g1"][gauge] == before["devices"]["g1"][gauge]
    for gauge in ("stored_pages", "orig_data_size", "compr_data_size", "huge_pages"):
        assert after["tmem"][gauge] == before["tmem"][gauge]
    assert (after["devices"]["g1"]["succ_stores"], after["tmem"]["puts"]) == (0, 0)
