# SPDX-License-Identifier: BSD-3-Clause
"""`sysctl`, `shrink` and `swapoff`: taking memory back."""

import json
import os
import signal
import subprocess
from pathlib import Path

import nbd
import pytest

from preswapd.units import PAGE_SIZE as PAGE
from preswapd.units import format_pages
from tests.clients import BEHIND_ZONE, connected
from tests.conftest import StartServer
from tests.running import PRESWAPCTL, RunningServer, run, wait_for, wait_until

PAGES = 2048


@pytest.fixture
def client(server: RunningServer) -> nbd.NBD:
    return filled(server, "g1")


def filled(server: RunningServer, export: str) -> nbd.NBD:
    """A client that has written PAGES pages, where guests swap."""
    client = connected(server, export)
    client.pwrite(content(export), BEHIND_ZONE)
    return client


def content(export: str) -> bytes:
    """Compressible, and different in each page."""
    return b"".join(f"{export} {page:9}".encode().ljust(16, b".") * 256 for page in range(PAGES))


def check_content(client: nbd.NBD, export: str) -> None:
    assert bytes(client.pread(PAGES * PAGE, BEHIND_ZONE)) == content(export)


def test_sysctl_reads_like_sysctl(server: RunningServer, client: nbd.NBD) -> None:
    assert server.ctl("sysctl", "vm.preswap").stdout == f"vm.preswap = {PAGES}\n"


@pytest.mark.parametrize("arguments", [["vm.preswap=0"], ["-w", "vm.preswap=0"]], ids=" ".join)
def test_sysctl_shrinks(server: RunningServer, client: nbd.NBD, arguments: list[str]) -> None:
    assert server.ctl("sysctl", *arguments).stdout == "vm.preswap = 0\n"
    stats = server.json_stats()
    assert stats["tmem"]["stored_pages"] == 0
    assert stats["devices"]["g1"]["written_back_pages"] == PAGES
    check_content(client, "g1")


def test_sysctl_json(server: RunningServer, client: nbd.NBD) -> None:
    text = server.ctl("--json", "sysctl", "vm.preswap").stdout
    assert json.loads(text) == {"vm.preswap": PAGES}


def test_shrink_to_a_part(server: RunningServer, client: nbd.NBD) -> None:
    text = server.ctl("shrink", "1000").stdout
    left = server.json_stats()["devices"]["g1"]["preswap_pages"]
    assert left <= 1000
    assert text.startswith(f"moved {PAGES - left} pages")
    check_content(client, "g1")


def test_shrink_takes_a_size(server: RunningServer, client: nbd.NBD) -> None:
    report = json.loads(server.ctl("--json", "shrink", "2M").stdout)
    assert report["left"] <= 512
    assert report["complete"] is True


def test_shrink_beyond_what_is_there_moves_nothing(server: RunningServer, client: nbd.NBD) -> None:
    report = json.loads(server.ctl("--json", "shrink", "1G").stdout)
    assert (report["moved"], report["left"]) == (0, PAGES)


def test_shrink_of_one_device(start_server: StartServer) -> None:
    server = start_server(devices={"g1": "64M", "g2": "64M"})
    clients = [filled(server, name) for name in ("g1", "g2")]
    server.ctl("shrink", "0", "g2")
    devices = server.json_stats()["devices"]
    assert (devices["g1"]["preswap_pages"], devices["g2"]["preswap_pages"]) == (PAGES, 0)
    for name, client in zip(("g1", "g2"), clients, strict=True):
        check_content(client, name)


def test_shrunk_memory_goes_back_to_the_host(server: RunningServer, client: nbd.NBD) -> None:
    before = server.arena.stat().st_blocks
    server.ctl("shrink", "0")
    assert server.arena.stat().st_blocks < before
    assert server.json_stats()["tmem"]["mem_used_total"] < (32 << 20) // 100


def test_interrupted_shrink_can_be_run_again(server: RunningServer, client: nbd.NBD) -> None:
    """Ctrl-C between the request and its answer: nobody knows how far the server came."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with subprocess.Popen(
            [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", "shrink", "0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            descriptors = Path(f"/proc/{process.pid}/fd")
            wait_until(lambda: any(map(is_socket, descriptors.iterdir())), "it to connect")
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=30)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert (process.returncode, *said) == (
        5,
        "",
        "preswapctl: interrupted; run it again to go on\n",
    )
    check_content(client, "g1")
    done = wait_for(
        lambda: server.ctl("sysctl", "vm.preswap=0", check=False), lambda done: done.returncode != 4
    )
    assert (done.returncode, done.stdout) == (0, "vm.preswap = 0\n")
    check_content(client, "g1")


def is_socket(descriptor: Path) -> bool:
    try:
        return os.readlink(descriptor).startswith("socket:")
    except FileNotFoundError:  # closed meanwhile
        return False


def test_shrink_dry_run_moves_nothing(server: RunningServer, client: nbd.NBD) -> None:
    said = server.ctl("shrink", "1000", "--dry-run").stdout
    assert said.startswith(f"would move {PAGES - 1000} pages (4.1M) to disk, 1000 pages")
    plan = json.loads(server.ctl("--json", "shrink", "0", "g1", "--dry-run").stdout)
    assert (plan["pages"], plan["left"], plan["fits"]) == (PAGES, 0, True)
    assert server.json_stats()["devices"]["g1"]["preswap_pages"] == PAGES


def test_shrink_without_waiting(server: RunningServer, client: nbd.NBD) -> None:
    assert server.ctl("shrink", "--status").stdout == "no shrink is under way\n"
    begun = json.loads(server.ctl("--json", "shrink", "0", "--no-wait").stdout)
    assert begun["target"] == 0
    wait_for(
        lambda: json.loads(server.ctl("--json", "shrink", "--status").stdout),
        lambda status: not status["running"],
    )
    assert server.ctl("shrink", "--status").stdout.startswith("the last shrink is done: 2048 pages")
    assert server.ctl("sysctl", "-n", "vm.preswap").stdout == "0\n"
    check_content(client, "g1")


def test_shrink_stop_without_one(server: RunningServer) -> None:
    done = server.ctl("shrink", "--stop", check=False)
    assert (done.returncode, done.stderr) == (4, "preswapctl: no shrink is under way\n")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--stop", "0"], "--stop takes neither N nor other options"),
        (["--status", "--dry-run"], "--status takes neither N nor other options"),
        (["--status", "--no-wait"], "--status takes neither N nor other options"),
        (["--no-wait"], "N is missing: how many pages, or what size, are to be left?"),
    ],
)
def test_shrink_options_that_do_not_go(
    module_server: RunningServer, options: list[str], complaint: str
) -> None:
    done = module_server.ctl("shrink", *options, check=False)
    assert (done.returncode, done.stderr) == (2, f"preswapctl: {complaint}\n")


# --- swapoff ---


def test_swapoff_drops_everything_but_the_scan_zone(server: RunningServer, client: nbd.NBD) -> None:
    client.pwrite(b"a volume's label".ljust(PAGE), PAGE)
    zone = bytes(client.pread(512 << 10, 0))
    server.ctl("shrink", "1000")
    report = json.loads(server.ctl("--json", "swapoff", "g1", "--yes").stdout)
    assert report["pages"] + report["disk_pages"] >= PAGES
    stats = server.json_stats()
    assert stats["tmem"]["stored_pages"] == 0
    assert stats["devices"]["g1"]["disk_pages"] <= 1
    for page in range(PAGES):
        with pytest.raises(nbd.Error, match="EIO"):
            client.pread(PAGE, BEHIND_ZONE + page * PAGE)
    assert stats["devices"]["g1"]["lost_pages"] == 0
    assert bytes(client.pread(512 << 10, 0)) == zone


def test_swapoff_warns_of_recent_io(server: RunningServer, client: nbd.NBD) -> None:
    client.pread(PAGE, 0)
    done = server.ctl("swapoff", "g1", "--yes")
    assert "still in use" in done.stderr


def test_swapoff_needs_yes_without_a_terminal(server: RunningServer, client: nbd.NBD) -> None:
    done = server.ctl("swapoff", "g1", check=False)
    assert done.returncode == 4
    assert "--yes" in done.stderr
    check_content(client, "g1")


def test_swapoff_says_what_is_held_and_whose(server: RunningServer, client: nbd.NBD) -> None:
    done = server.ctl("swapoff", "g1", check=False)
    assert f"g1 of default holds {format_pages(PAGES)} and has a client connected; " in done.stderr


def test_swapoff_with_closed_input_needs_yes(server: RunningServer) -> None:
    command = f"{PRESWAPCTL} --runtime-dir={server.runtime_dir} swapoff g1 <&-"
    done = run(["sh", "-c", command])
    assert (done.returncode, "--yes" in done.stderr) == (4, True)


def test_shrink_with_closed_streams(server: RunningServer, client: nbd.NBD) -> None:
    command = f"{PRESWAPCTL} --runtime-dir={server.runtime_dir} shrink 0 >&- 2>&-"
    assert run(["sh", "-c", command]).returncode == 0
    assert server.json_stats()["devices"]["g1"]["preswap_pages"] == 0


@pytest.mark.parametrize(("answer", "status"), [("n\n", 4), ("\n", 4), ("\x04", 4), ("y\n", 0)])
def test_swapoff_asks_at_a_terminal(
    server: RunningServer, client: nbd.NBD, answer: str, status: int
) -> None:
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [PRESWAPCTL, f"--runtime-dir={server.runtime_dir}", "swapoff", "g1"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        os.write(ours, answer.encode())
        process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == status
    left = server.json_stats()["devices"]["g1"]["preswap_pages"]
    assert left == (0 if status == 0 else PAGES)
