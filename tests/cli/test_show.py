"""`list` and `stats`."""

import json
import os
import re

import nbd

from tests.running import RunningServer

TMEM = {
    "mem_limit",
    "mem_used_total",
    "mem_used_max",
    "stored_pages",
    "same_filled_pages",
    "huge_pages",
    "orig_data_size",
    "compr_data_size",
    "metadata_size",
    "puts",
    "good_puts",
    "no_mem_puts",
    "dup_puts_replaced",
    "dup_puts_flushed",
    "gets",
    "found_gets",
    "flushes",
    "flushes_found",
    "pool_limit_hit",
    "reject_alloc_fail",
    "checksum_errors",
}
DEVICE = {
    "size",
    "connections",
    "preswap_pages",
    "disk_pages",
    "loads",
    "succ_stores",
    "failed_stores",
    "invalidates",
    "disk_reads",
    "disk_writes",
    "disk_errors",
    "trims",
    "written_back_pages",
    "read_requests",
    "write_requests",
}


def test_stats_have_every_promised_field(module_server: RunningServer) -> None:
    stats = module_server.json_stats()
    assert stats["page_size"] == 4096
    assert stats["instance"] == "default"
    assert re.fullmatch(r"\d+\.\d+\.\d+", stats["version"])
    assert stats["tmem"].keys() >= TMEM
    assert stats["devices"]["g1"].keys() >= DEVICE


def test_stats_say_why_so_many_threads(module_server: RunningServer) -> None:
    server = module_server.json_stats()["server"]
    assert server["threads"] >= 1
    assert server["threads_reason"]


def test_pool_size_is_the_limit(module_server: RunningServer) -> None:
    assert module_server.json_stats()["tmem"]["mem_limit"] == 32 << 20


def test_stats_of_one_device(server: RunningServer) -> None:
    server.ctl("create", "g2", "1M")
    assert json.loads(server.ctl("--json", "stats", "g2").stdout)["devices"].keys() == {"g2"}


def test_stats_for_people_show_every_counter(module_server: RunningServer) -> None:
    text = module_server.ctl("stats").stdout
    assert all(re.search(rf"^  {name} +\S", text, re.MULTILINE) for name in TMEM | DEVICE)


def test_list_has_a_row_for_each_device(server: RunningServer) -> None:
    server.ctl("create", "g2", "1M", "--compress", "zstd")
    head, *rows = (line.split() for line in server.ctl("list").stdout.splitlines())
    assert head[0] == "NAME"
    assert [(row[0], row[head.index("SIZE")]) for row in rows] == [("g1", "64M"), ("g2", "1M")]


def test_list_follows_what_is_written(server: RunningServer) -> None:
    client = nbd.NBD()
    client.connect_uri(server.nbd_uri("g1"))
    client.pwrite(os.urandom(1 << 20), 1 << 20)
    (device,) = json.loads(server.ctl("--json", "list").stdout)["devices"]
    assert device["preswap_pages"] + device["disk_pages"] >= 256
    assert device["connections"] == 1
    client.shutdown()
