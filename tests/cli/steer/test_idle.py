# SPDX-License-Identifier: BSD-3-Clause
"""`shrink --idle`: what nobody uses goes to disk, and everything else stays."""

import json
from functools import partial

import nbd
import pytest

from preswapd.api.client import Client
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import RunningServer, wait_for

PAGES = 2048


@pytest.fixture
def client(server: RunningServer) -> nbd.NBD:
    return filled(server, "g1")


def content(export: str) -> bytes:
    return b"".join(f"{export} {page:9}".encode().ljust(16, b".") * 256 for page in range(PAGES))


def filled(server: RunningServer, export: str) -> nbd.NBD:
    client = connected(server, export)
    client.pwrite(content(export), BEHIND_ZONE)
    return client


def in_tmem(server: RunningServer, export: str = "g1") -> int:
    return int(server.json_stats()["devices"][export]["preswap_pages"])


def old(server: RunningServer) -> None:
    """Waits until nobody has used a page for more than two seconds."""
    ages = partial(Client(server.control_socket).ages, None, [0, 3])
    wait_for(ages, lambda found: found[0].pages == found[1].pages)


def test_what_is_idle_goes_to_disk(server: RunningServer, client: nbd.NBD) -> None:
    old(server)
    done = server.ctl("shrink", "--idle", "2s")
    assert done.stdout == f"moved {PAGES} pages (8M) to disk, 0 pages (0B) left in tmem\n"
    assert in_tmem(server) == 0
    assert server.ctl("stats", "-rn", "-o", "MOVED").stdout == f"{PAGES}\n"
    assert bytes(client.pread(PAGES * PAGE, BEHIND_ZONE)) == content("g1")


def test_what_is_in_use_stays(server: RunningServer, client: nbd.NBD) -> None:
    report = json.loads(server.ctl("--json", "shrink", "--idle", "1h").stdout)
    assert report == {"moved": 0, "left": PAGES, "lost": 0, "complete": True, "reason": None}
    assert in_tmem(server) == PAGES


def test_what_was_just_read_stays(server: RunningServer, client: nbd.NBD) -> None:
    old(server)
    client.pread(PAGES // 2 * PAGE, BEHIND_ZONE)
    server.ctl("shrink", "--idle", "2s")
    loads = server.json_stats()["devices"]["g1"]["loads"]
    client.pread(PAGES // 2 * PAGE, BEHIND_ZONE)
    assert server.json_stats()["devices"]["g1"]["loads"] == loads + PAGES // 2
    assert bytes(client.pread(PAGES * PAGE, BEHIND_ZONE)) == content("g1")


def test_device_follows_the_age(start_server: StartServer) -> None:
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    for name in ("g1", "g2"):
        filled(server, name)
    old(server)
    server.ctl("shrink", "--idle", "2", "g2")
    assert (in_tmem(server, "g1"), in_tmem(server, "g2")) == (PAGES, 0)
    server.ctl("shrink", "g1", "--idle=2s")
    assert in_tmem(server, "g1") == 0


def test_dry_run_counts_what_is_idle(server: RunningServer, client: nbd.NBD) -> None:
    assert server.ctl("shrink", "--idle", "1h", "--dry-run").stdout.startswith(
        f"would move 0 pages (0B) to disk, {PAGES} pages (8M) left in tmem\n"
    )
    old(server)
    plan = json.loads(server.ctl("--json", "shrink", "--idle", "2s", "g1", "--dry-run").stdout)
    assert (plan["pages"], plan["left"], plan["fits"]) == (PAGES, 0, True)
    assert in_tmem(server) == PAGES


def test_without_waiting_and_its_status(server: RunningServer, client: nbd.NBD) -> None:
    old(server)
    begun = json.loads(server.ctl("--json", "shrink", "--idle", "2s", "--no-wait").stdout)
    assert (begun["idle"], begun["setting"], begun["sync"]) == (2, None, False)
    wait_for(
        lambda: json.loads(server.ctl("--json", "shrink", "--status").stdout),
        lambda status: not status["running"],
    )
    said = server.ctl("shrink", "--status").stdout
    assert said == (
        "the last shrink of what was idle for 2s is done:"
        " 2048 pages (8M) moved, 0 pages (0B) left\n"
    )
    assert "shrink of what was idle for 2s from 2048 to 0 pages begins" in server.log


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--idle", "1h", "100", "g1"], "--idle takes no N: `preswapctl shrink --idle 1h g1`"),
        (
            ["--idle", "0"],
            "--idle takes an age of a second or more: `preswapctl shrink 0` moves all",
        ),
        (["--idle", "1h", "--status"], "--status takes neither N nor other options"),
        (["--idle", "1h", "g3"], "there is no device 'g3' in default"),
    ],
)
def test_what_does_not_go_together(
    module_server: RunningServer, arguments: list[str], complaint: str
) -> None:
    done = module_server.ctl("shrink", *arguments, check=False)
    assert (done.returncode, done.stderr) == (2, f"preswapctl: {complaint}\n")


def test_what_is_no_age(module_server: RunningServer) -> None:
    done = module_server.ctl("shrink", "--idle", "soon", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'soon' is not a duration: write it like 30m, 2h or 90s" in done.stderr
