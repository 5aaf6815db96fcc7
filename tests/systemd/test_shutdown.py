# SPDX-License-Identifier: BSD-3-Clause
"""preswapd-sync@.service under a real systemd: a shutdown loses nothing, a restart moves nothing.

A reboot: shutdown.target stops the services in their order; then shared memory is removed, and the
server starts again.
"""

import json
import re
import shutil
from collections.abc import Iterator

import pytest

from preswapd.cli.doctor.finding import NOTE, OK
from preswapd.preswap.files.sidecar import Sidecar
from preswapd.units import PAGE_SIZE as PAGE
from tests.clients import BEHIND_ZONE
from tests.systemd.booted import CHECKOUT, Booted, NotPossibleError
from tests.systemd.test_service import CONFIG, NOISE, client, install_units

pytestmark = pytest.mark.xdist_group("systemd")

LAST_WORDS = b"saved while the host shut down".ljust(PAGE, b".")
# As libvirt-guests does with managed save: the guest swaps until it is stopped, in ExecStop=.
GUEST = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/opt/preswapd/bin/python /opt/guest.py
"""
WRITES = f"""
import nbd
disk = nbd.NBD()
disk.connect_unix("/run/preswapd/vm1/nbd.sock")
disk.pwrite({LAST_WORDS!r}, {BEHIND_ZONE + len(NOISE)})
"""
# It needs what reboot.target and poweroff.target need, and systemd itself goes on.
ENDING = """
[Unit]
DefaultDependencies=no
Requires=shutdown.target
After=shutdown.target
"""
SERVER, SYNC, GUESTS = "preswapd@vm1", "preswapd-sync@vm1", "libvirt-guests.service"


@pytest.fixture
def host() -> Iterator[Booted]:
    """With an instance vm1 that a guest has swapped to."""
    try:
        with Booted() as booted:
            install_units(booted)
            booted.path("/etc/preswapd/vm1.toml").write_text(CONFIG)
            booted.path("/opt/guest.py").write_text(WRITES)
            booted.path(f"/etc/systemd/system/{GUESTS}").write_text(GUEST)
            booted.path("/etc/systemd/system/ending.target").write_text(ENDING)
            booted.run("systemctl", "daemon-reload")
            booted.run("systemctl", "enable", "--now", SERVER)
            booted.run("systemctl", "start", GUESTS)
            client(booted, "vm1").pwrite(NOISE, BEHIND_ZONE)
            yield booted
    except NotPossibleError as error:
        pytest.skip(str(error))


def when(host: Booted, unit: str, change: str) -> int:
    """Microseconds since the host's boot; 0: never."""
    return int(host.show(unit, f"{change}TimestampMonotonic"))


def is_clean(host: Booted) -> bool:
    return Sidecar.read(host.path("/var/lib/preswapd/vm1/swap0.json")).clean


def lose_memory(host: Booted) -> None:
    shutil.rmtree(host.path("/dev/shm/preswapd-vm1"))


def test_shutdown_loses_nothing(host: Booted) -> None:
    assert host.show(SYNC, "ActiveState") == "active"
    host.run("systemctl", "start", "ending.target")
    for unit in (GUESTS, SYNC, SERVER):
        host.wait_for(unit, "ActiveState", "inactive")
    assert host.show(SYNC, "Result") == "success"
    (told,) = (line for line in host.journal(SYNC) if line.startswith("moved "))
    assert told == f"moved {len(NOISE) // PAGE + 1} pages (260K) to disk, 0 pages (0B) left in tmem"
    # Each has ended before the next one begins to stop.
    assert when(host, GUESTS, "InactiveEnter") <= when(host, SYNC, "ActiveExit")
    assert when(host, SYNC, "InactiveEnter") <= when(host, SERVER, "ActiveExit")
    assert is_clean(host)
    lose_memory(host)
    host.run("systemctl", "start", SERVER)
    disk = client(host, "vm1")
    assert bytes(disk.pread(len(NOISE), BEHIND_ZONE)) == NOISE
    assert bytes(disk.pread(PAGE, BEHIND_ZONE + len(NOISE))) == LAST_WORDS


def test_pages_of_a_server_that_was_stopped_by_hand(host: Booted) -> None:
    host.run("systemctl", "stop", f"{SERVER}.socket", SERVER)
    assert host.show(SYNC, "ActiveState") == "active"
    host.run("systemctl", "stop", SYNC)
    assert host.show(SYNC, "Result") == "success"
    pages = len(NOISE) // PAGE
    (end,) = (line for line in host.journal(SYNC) if "all pages are on disk" in line)
    assert end.startswith(f"instance vm1: all pages are on disk, {pages} pages")
    lose_memory(host)
    host.run("systemctl", "start", SERVER)
    assert bytes(client(host, "vm1").pread(len(NOISE), BEHIND_ZONE)) == NOISE


def test_restarts_move_no_page(host: Booted) -> None:
    entered = when(host, SYNC, "StateChange")
    host.run("systemctl", "restart", SERVER)
    host.run("systemctl", "kill", "--signal=KILL", SERVER)
    assert bytes(client(host, "vm1").pread(len(NOISE), BEHIND_ZONE)) == NOISE
    host.run("systemctl", "stop", SERVER)
    host.run("systemctl", "start", SERVER)
    assert when(host, SYNC, "StateChange") == entered
    ctl = ("/opt/preswapd/bin/preswapctl", "--runtime-dir=/run/preswapd/vm1")
    pages = int(host.run(*ctl, "sysctl", "-n", "vm.preswap"))
    assert pages == len(NOISE) // PAGE


def test_doctor_misses_it(host: Booted) -> None:
    def told() -> tuple[str, str]:
        text = host.run("/opt/preswapd/bin/preswapctl", "--json", "doctor", check=False)
        checks = json.loads(text)["checks"]
        (found,) = (check for check in checks if check["subject"] == f"{SYNC}.service")
        return found["status"], found["text"]

    assert told() == (OK, "brings all pages to disk when the host shuts down")
    host.run("systemctl", "stop", SYNC)
    assert is_clean(host)
    status, text = told()
    assert (status, text.split(":")[0]) == (NOTE, "is not active (inactive)")


def test_move_of_the_disk_files(host: Booted) -> None:
    """With the commands of docs/guides/reboots.md."""
    guide = (CHECKOUT / "docs/guides/reboots.md").read_text()
    (command,) = re.findall(r"^setpriv (?:.+\\\n)+.+$", guide, re.M)
    state = "/var/lib/preswapd/vm1"
    host.run("/opt/preswapd/bin/preswapctl", "--instance=vm1", "sync")
    host.run("systemctl", "stop", f"{SERVER}.socket", SERVER)
    host.run("cp", "--archive", state, f"{state}.new")
    host.run("rm", "--recursive", state)
    host.run("mv", f"{state}.new", state)
    host.run("systemctl", "start", "--no-block", SERVER)
    host.wait_for(SERVER, "ExecMainStatus", "4")
    host.run("systemctl", "stop", f"{SERVER}.socket", SERVER)
    host.run("sh", "-c", command)
    host.run("systemctl", "start", f"{SERVER}.socket", SERVER)
    assert bytes(client(host, "vm1").pread(len(NOISE), BEHIND_ZONE)) == NOISE
