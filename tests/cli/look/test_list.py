# SPDX-License-Identifier: BSD-3-Clause
"""`list`: a row for each device."""

import json
import os
import re
from typing import Any, cast

from preswapd.api.figures import Statistics
from preswapd.cli.look.columns import DEVICE_COLUMNS, FROZEN, POOL_COLUMNS, QUOTA
from preswapd.cli.look.rows import Moment, Subject, devices_of, pool_of
from tests.cli.look.printed import rows
from tests.clients import BEHIND_ZONE
from tests.running import RunningServer


def test_list_has_a_row_for_each_device(server: RunningServer) -> None:
    server.ctl("create", "g2", "1M", "--compress", "zstd")
    head, *rows = (line.split() for line in server.ctl("list").stdout.splitlines())
    assert head[0] == "NAME"
    assert [(row[0], row[head.index("SIZE")]) for row in rows] == [("g1", "64M"), ("g2", "1M")]


def test_list_follows_what_is_written(server: RunningServer, client: Any) -> None:
    client.pwrite(os.urandom(1 << 20), BEHIND_ZONE)
    (device,) = json.loads(server.ctl("--json", "list").stdout)["devices"]
    assert device["preswap_pages"] + device["disk_pages"] >= 256
    assert device["connections"] == 1


def test_list_sizes_add_up_to_the_guests_pages(server: RunningServer, client: Any) -> None:
    for part in range(2):  # more than the pool takes
        client.pwrite(os.urandom(24 << 20), BEHIND_ZONE + part * (24 << 20))
    client.trim(1 << 20, BEHIND_ZONE)
    (row,) = rows(server.ctl("list", "-rb", "-o", "+FREE,LOST").stdout)
    cells = {name: int(row[name]) for name in ("SIZE", "USED", "TMEM", "DISK", "LOST", "FREE")}
    assert cells["USED"] == (47 << 20) + 4096 == cells["TMEM"] + cells["DISK"] + cells["LOST"]
    assert cells["SIZE"] == cells["USED"] + cells["FREE"] == 64 << 20
    assert min(cells["TMEM"], cells["DISK"]) > 8 << 20


def test_list_tells_how_long_reads_took(server: RunningServer, client: Any) -> None:
    before = server.ctl("list", "-rn", "-o", "READ-P50,READ-P99").stdout
    client.pread(4096, 0)
    after = server.ctl("list", "-rnb", "-o", "READ-P50,READ-P99").stdout
    assert before == "- -\n"
    assert all(float(cell) > 0 for cell in after.split())


def test_quota_and_freezing_are_seen_wherever_one_looks(server: RunningServer) -> None:
    """Without them nobody would know why pages go to disk."""
    server.ctl("create", "g2", "1M")

    def columns(*command: str) -> list[tuple[str, ...]]:
        found = rows(server.ctl(*command, "--raw").stdout)
        return [(row.get("NAME", "pool"), row.get("QUOTA", ""), row["FROZEN"]) for row in found]

    assert columns("list") == [("g1", "-", "no"), ("g2", "-", "no")]
    assert "QUOTA" not in server.ctl("top", "-b", "-n1").stdout
    server.ctl("sysctl", "preswap.default.g1.quota=8M", "preswap.default.frozen=1")
    assert columns("list") == [("g1", "8M", "yes"), ("g2", "-", "yes")]
    assert columns("stats", "g1") == [("g1", "8M", "yes")]
    assert columns("stats", "-o", "FROZEN") == [("pool", "", "yes")]
    assert re.search(r"^  frozen +True$", server.ctl("stats").stdout, re.M)
    assert re.search(r"^  quota +2048$", server.ctl("stats").stdout, re.M)
    stats = server.json_stats()
    quotas = [figures["quota"] for figures in stats["devices"].values()]
    assert (stats["tmem"]["frozen"], quotas) == (True, [2048, 256])
    top = server.ctl("top", "-b", "-n1").stdout
    assert re.search(r"^default  .*, frozen: new pages go to disk$", top, re.M)
    assert "QUOTA" in top
    metrics = server.ctl("metrics").stdout
    assert 'preswapd_tmem_frozen{instance="default"} 1\n' in metrics
    assert 'preswapd_device_quota{instance="default",device="g1"} 2048\n' in metrics
    assert 'preswapd_device_quota{instance="default",device="g2"} 256\n' in metrics


def test_counters_of_an_older_server() -> None:
    """It does not count them, which is not the same as 0."""
    figures = {"loads": 1, "disk_reads": 0, "written_back_pages": 7}
    stats = {"instance": "vm1", "tmem": {}, "devices": {"g1": figures, "g2": figures}}
    moment = Moment(cast(Statistics, stats), 0.0, 0.0)
    pool, device = pool_of(moment), devices_of(moment)[0]
    names = ("MOVED", "MOVED-ROOM", "MOVED-IDLE", "REFAULTS", "BACK")
    for columns, row, moved in ((POOL_COLUMNS, pool, "14"), (DEVICE_COLUMNS, device, "7")):
        told = [column.text(row) for column in columns if column.name in names]
        assert told == [moved, "-", "-", "-", "-"]


def test_columns_of_an_older_server() -> None:
    """It says neither."""
    figures = {"size": 1 << 20, "preswap_pages": 0, "disk_pages": 0, "lost_pages": 0}
    row = Subject("vm1", "g1", 0.0, {**figures, "connections": 0, "compress": "lz4"})
    told = {column.name: column.text(row) for column in (QUOTA, FROZEN)}
    assert told == {"QUOTA": "-", "FROZEN": "-"}
