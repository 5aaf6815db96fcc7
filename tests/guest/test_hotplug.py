# SPDX-License-Identifier: BSD-3-Clause
"""A disk that comes to a guest while it runs, and goes again."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from preswapd.guest.kernel import Kernel
from preswapd.qmp import Monitor
from tests.conftest import StartServer
from tests.guest.swapping import FILES, SwappingGuest
from tests.guest.test_swapping import is_swapping
from tests.running import GUEST_PATIENCE, RunningServer, wait_until

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(500)]

# So many fit into the guest's memory.
WITHOUT_SWAP = 6
HUNGRY = f"""
for n in $(seq 0 {FILES - 1}); do
  [ $n -lt {WITHOUT_SWAP} ] || until grep -q ^/dev /proc/swaps; do usleep 100000; done
  dd if=/dev/vda of=/files/$n bs=1M count=1 skip=$n 2>/dev/null || exit 1
done
"""


@pytest.fixture
def qmp() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="preswapd-test-") as folder:
        yield Path(folder) / "qmp"


@pytest.fixture
def guest(
    start_server: StartServer, qmp: Path, kernel: Kernel, guest_cache: Path, tmp_path: Path
) -> Iterator[SwappingGuest]:
    """Without a swap disk, but with a port for one."""
    server = start_server(devices={"g1": "256M"})
    hardware = ["-device", "pcie-root-port,id=port0,chassis=1"]
    hardware += ["-qmp", f"unix:{qmp},server=on,wait=off"]
    with SwappingGuest(server, kernel, guest_cache, tmp_path, hardware=hardware) as running:
        yield running


def test_disk_comes_to_a_running_guest_and_goes(guest: SwappingGuest, qmp: Path) -> None:
    server = guest.server
    guest.run("mkdir /files && mount -t tmpfs -o size=1G none /files")
    hungry = guest.start("hungry", HUNGRY)
    last = f"/files/{WITHOUT_SWAP - 1}"
    wait_until(lambda: guest.run(f"[ -e {last} ]", check=False).status == 0, "the guest to be full")

    server.ctl("attach", "g1", f"--qmp={qmp}")
    appear(guest)
    area = guest.swapon("g1")
    assert "SSDsc" in guest.run("dmesg | grep 'swap on'").output
    hungry.wait(GUEST_PATIENCE)
    assert guest.vmstat()["pswpout"] > 1000

    load = guest.start_load()
    wait_until(lambda: is_swapping(server), "swap traffic")
    refused = server.ctl("detach", "g1", f"--qmp={qmp}", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (4, 1)
    assert is_attached(qmp)
    guest.stop_load(load)
    guest.assert_saw_nothing()

    guest.run("umount /files")
    guest.swapoff(area.path)
    detach_when_it_rests(server, qmp)
    assert disks(guest) == ["vda"]
    assert not is_attached(qmp)

    # Then as a virtio disk, which must be told that it does not rotate.
    server.ctl("attach", "g1", f"--qmp={qmp}", "--bus=virtio")
    appear(guest)
    assert guest.read("/sys/block/vdb/serial") == "preswap-g1"
    assert guest.read("/sys/block/vdb/queue/rotational") == "1\n"
    guest.run("echo 0 >/sys/block/vdb/queue/rotational")
    line = json.loads(server.ctl("--json", "guest-setup", "g1").stdout)["fstab"]
    guest.run(f"echo {line} >/etc/fstab && swapon -a")
    (area,) = guest.swaps()
    # Busybox reads the options for discards there, and not the priority.
    assert "SSDsc" in guest.run("dmesg | grep 'swap on' | tail -n 1").output
    guest.swapoff(area.path)
    server.ctl("detach", "g1", f"--qmp={qmp}", "--force")
    assert disks(guest) == ["vda"]
    assert not is_attached(qmp)


def disks(guest: SwappingGuest) -> list[str]:
    """Some kernels have loop devices and memory disks built in."""
    found = guest.run("ls /sys/block").output.split()
    return [name for name in found if not name.startswith(("loop", "ram"))]


def appear(guest: SwappingGuest) -> None:
    """The guest's kernel looks for it by itself, and takes a moment."""
    wait_until(lambda: guest.run("findfs LABEL=g1", check=False).status == 0, "the disk to appear")


def is_attached(qmp: Path) -> bool:
    with closing(Monitor.at(qmp)) as monitor:
        nodes = monitor.execute("query-named-block-nodes", flat=True)
        devices = monitor.execute("qom-list", path="/machine/peripheral")
    names = {node["node-name"] for node in nodes} | {found["name"] for found in devices}
    return bool(names & {"preswap-g1", "pss-g1"})


def detach_when_it_rests(server: RunningServer, qmp: Path) -> None:
    """Without --force it is refused for some seconds after the swapoff, and then it asks where
    pages are left on the host."""
    wait_until(
        lambda: server.ctl("detach", "g1", f"--qmp={qmp}", "--yes", check=False).returncode == 0,
        "detach to be allowed",
    )
