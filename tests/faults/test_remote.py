# SPDX-License-Identifier: BSD-3-Clause
"""What a store answers may be wrong in any way: a small part of the search of remote_replies."""

import errno
from pathlib import Path

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, Connect, discard
from tests.conftest import StartServer
from tests.faults.conftest import NOISE
from tests.faults.injection import Call, Injector
from tests.faults.remote_replies import FAULTS, search
from tests.remote.stores import StoreServer, needs_store
from tests.running import wait_for

PAGES = 400
# Of a piece that a writeback writes: what lies before it arrives.
MIDDLE = (BEHIND_ZONE // PAGE + 100, BEHIND_ZONE // PAGE + 110)


@pytest.mark.parametrize("seed", [1, 2])
def test_no_wrong_answer_makes_a_wrong_page(seed: int) -> None:
    found = search(replies=3000, seed=seed)
    assert found.faults.total() >= 3000
    assert {fault.__name__ for fault in FAULTS} <= found.faults.keys()
    figures = found.remote.figures()
    assert figures["remote_reads"] > 100
    assert figures["remote_wrong"] > 100
    # What is wrong, missing or overwritten was deleted, but for what couriers took with them, of
    # which there are more where the machine is busy.
    assert len(found.store) < figures["remote_sets"] / 4


@needs_store
def test_a_disk_that_fails_beside_a_store(
    start_server: StartServer, injector: Injector, connect: Connect, tmp_path: Path
) -> None:
    """What the store has is read; what could not be written is read as it was, and not from there;
    and what neither has is an error, no page of zeros."""
    old, new = NOISE[: PAGES * PAGE], NOISE[PAGES * PAGE : 2 * PAGES * PAGE]
    with StoreServer(tmp_path / "store") as store:
        url, patient = f"--remote-url={store.url}", "--remote-timeout=1s"
        server = start_server(extra=[url, patient], env=injector.env)

        def sets(number: int) -> None:
            wait_for(lambda: server.client.stats()["remote"]["remote_sets"], lambda n: n >= number)

        wait_for(lambda: server.client.stats()["remote"]["remote_nodes_up"], lambda up: up == 1)
        client = discard(connect(server))
        client.pwrite(old, BEHIND_ZONE)
        server.ctl("shrink", "0")
        sets(PAGES)
        injector.fail(Call.READ, "/g1.img", errno.EIO)
        assert client.pread(len(old), BEHIND_ZONE) == old
        injector.fail(Call.WRITE, "/g1.img", errno.EIO)
        with pytest.raises(nbd.Error):
            client.pwrite(new, BEHIND_ZONE, flags=nbd.CMD_FLAG_FUA)
        injector.end()
        assert client.pread(len(old), BEHIND_ZONE) == old
        client.pwrite(new, BEHIND_ZONE)
        injector.fail(Call.WRITE, "/g1.img", errno.EIO, MIDDLE)
        server.ctl("shrink", "0", check=False)
        injector.end()
        assert client.pread(len(new), BEHIND_ZONE) == new
        server.ctl("shrink", "0")
        store("FLUSHALL")
        injector.fail(Call.READ, "/g1.img", errno.EIO)
        with pytest.raises(nbd.Error):
            client.pread(len(new), BEHIND_ZONE)
        injector.end()
        assert client.pread(len(new), BEHIND_ZONE) == new
