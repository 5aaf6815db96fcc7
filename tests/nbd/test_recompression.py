# SPDX-License-Identifier: BSD-3-Clause
"""A server whose guest is idle makes its pages smaller by itself."""

from tests.clients import BEHIND_ZONE, Connect
from tests.running import RunningServer, wait_until
from tests.tmem.pages import make_page

PAGES = b"".join(make_page("letters", page) for page in range(1, 1025))


def smaller(server: RunningServer) -> int:
    found: int = server.json_stats()["tmem"]["recompressed_pages"]
    return found


def test_idle_pages_become_smaller(server: RunningServer, connect: Connect) -> None:
    client = connect(server)
    client.pwrite(PAGES, BEHIND_ZONE)
    before = server.settled_stats()["tmem"]
    assert before["recompressed_pages"] == 0
    server.ctl("sysctl", "preswap.default.recompress_after=1")
    wait_until(lambda: smaller(server) > 900, "the pages to become smaller")
    after = server.json_stats()["tmem"]
    assert after["compr_data_size"] < 0.7 * before["compr_data_size"]
    assert after["recompress_saved"] > 0.25 * before["live_slot_bytes"]
    assert client.pread(len(PAGES), BEHIND_ZONE) == PAGES
    server.kill()
    server.start()
    assert connect(server).pread(len(PAGES), BEHIND_ZONE) == PAGES
