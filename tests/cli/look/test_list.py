# SPDX-License-Identifier: BSD-3-Clause
"""`list`: a row for each device."""

import json
import os
from typing import Any

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
