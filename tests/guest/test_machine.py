# SPDX-License-Identifier: BSD-3-Clause
"""A real guest: boots, does what it is told and swaps; its faults are told apart."""

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from preswapd.demo.server import allocated
from preswapd.guest.faults import CommandError, GuestTimeoutError, LostGuestError
from preswapd.guest.kernel import Kernel
from preswapd.guest.machine import Guest, Hardware, Software
from preswapd.guest.memory import memory_leaving
from preswapd.guest.programs import find
from tests.running import GUEST_PATIENCE, wait_until

pytestmark = pytest.mark.guest

MIB = 1 << 20
AVAILABLE = 35 * MIB
LABEL = "plain"


def swap_file(folder: Path) -> Path:
    path = folder / "swap.img"
    path.touch(mode=0o600)
    os.truncate(path, 256 * MIB)
    mkswap = find("mkswap", "util-linux")
    subprocess.run([mkswap, "-q", "-L", LABEL, path], check=True, capture_output=True)
    return path


def disk_of(path: Path) -> list[str]:
    blockdev = {"driver": "file", "node-name": "swap", "filename": str(path), "discard": "unmap"}
    disk = "scsi-hd,bus=scsi.0,drive=swap,rotation_rate=1,werror=stop,rerror=stop"
    return [
        *("-blockdev", json.dumps(blockdev), "-device", "virtio-scsi-pci,id=scsi"),
        *("-device", disk),
    ]


@pytest.fixture
def material(tmp_path: Path) -> Path:
    path = tmp_path / "material"
    path.write_bytes(random.Random(1).randbytes(96 * MIB))
    return path


@pytest.fixture(scope="module")
def guest(kernel: Kernel, guest_cache: Path) -> Iterator[Guest]:
    xz = find("xz", "xz-utils")
    software = Software(kernel, [xz], {"/run/me": b"#!/bin/sh\necho ran with $#\nexit 5\n"})
    hardware = Hardware(memory_leaving(AVAILABLE, kernel, guest_cache))
    with Guest(hardware, software, guest_cache, life=200) as running:
        yield running


def test_guest_swaps_to_a_file_and_gives_it_back(
    kernel: Kernel, guest_cache: Path, tmp_path: Path, material: Path
) -> None:
    swap = swap_file(tmp_path)
    memory = memory_leaving(51 * MIB, kernel, guest_cache)
    hardware = Hardware(memory, disks=disk_of(swap), material=material)
    with Guest(hardware, Software(kernel), guest_cache, life=200) as guest:
        area = guest.swapon(LABEL)
        assert "SSDsc" in guest.run("dmesg | grep 'swap on'").output
        guest.run("mkdir /fill; mount -t tmpfs -o size=1G none /fill")
        job = guest.start("fill", "cat /dev/vda >/fill/data && sha256sum /fill/data")
        digest = job.wait(80).output.split()[0]
        assert digest == hashlib.sha256(material.read_bytes()).hexdigest()
        full, written = guest.swaps()[0].used, allocated(swap)
        assert full > 16 * MIB
        assert guest.vmstat()["pswpout"] * 4096 >= full
        guest.run("rm /fill/data")
        wait_until(lambda: allocated(swap) <= written // 2, "discards")
        guest.swapoff(area.path)
        assert guest.swaps() == []
        assert guest.troubles() == []
        assert guest.stops() == []


def test_guest_runs_programs_of_the_host(guest: Guest) -> None:
    xz = find("xz", "xz-utils")
    assert guest.kernel_version.endswith(("amd64", "generic"))
    assert guest.run(f"echo real | {xz} -0 | {xz} -d").output == "real\n"


def test_guest_command_that_fails(guest: Guest) -> None:
    with pytest.raises(CommandError, match="status 5: ran with 2"):
        guest.run("/run/me a b")
    assert guest.run("kill -9 $$; sh -c 'kill -9 $PPID'", check=False).status == 137
    assert guest.run("seq 100000 | tail -n 1").output == "100000\n"


def test_guest_that_answers_late_answers_again(guest: Guest) -> None:
    with pytest.raises(GuestTimeoutError, match="after 1 s"):
        guest.run("sleep 3; echo late", timeout=1)
    assert guest.run("echo on time").output == "on time\n"


def test_guest_job_runs_beside_commands(guest: Guest) -> None:
    job = guest.start("waiting", "while [ ! -e /run/go ]; do usleep 20000; done; echo gone; exit 2")
    assert job.poll() is None
    guest.run("touch /run/go")
    with pytest.raises(CommandError, match="waiting ended with status 2: gone"):
        job.wait(GUEST_PATIENCE)


def test_guest_short_of_memory_shows_in_its_log_and_a_panic_ends_it(
    kernel: Kernel, guest_cache: Path
) -> None:
    hardware = Hardware(memory_leaving(AVAILABLE, kernel, guest_cache))
    with Guest(hardware, Software(kernel), guest_cache, life=200) as guest:
        with pytest.raises(CommandError, match="status 137"):
            guest.start("hungry", "exec tail /dev/zero").wait(60)
        assert any("Out of memory" in line for line in guest.troubles())
        with pytest.raises(LostGuestError, match="panicked: Kernel panic"):
            guest.run("echo c >/proc/sysrq-trigger")


def test_guest_past_its_life_is_given_up(kernel: Kernel, guest_cache: Path) -> None:
    hardware = Hardware(memory_leaving(AVAILABLE, kernel, guest_cache))
    with (
        pytest.raises(GuestTimeoutError, match="its 12 s were over"),
        Guest(hardware, Software(kernel), guest_cache, life=12) as guest,
    ):
        guest.run("sleep 1000", timeout=1000)


def test_guest_whose_qemu_cannot_start_says_why(kernel: Kernel, guest_cache: Path) -> None:
    hardware = Hardware(96 * MIB, disks=["-device", "no-such-device"])
    with (
        pytest.raises(LostGuestError, match="no-such-device"),
        Guest(hardware, Software(kernel), guest_cache, life=200),
    ):
        pass


# Runs QEMU, but for the first time.
SPOILT = """
if mkdir "$0"; then
    echo "qemu: physmem.c:1: iotlb_to_section: Assertion failed." >&2
    kill -ABRT $$
fi
exec "$@"
"""


def test_boot_that_emulation_has_spoilt_is_done_once_more(
    kernel: Kernel, guest_cache: Path, tmp_path: Path
) -> None:
    wrapper = ("sh", "-c", SPOILT, str(tmp_path / "spoilt"))
    hardware = Hardware(memory_leaving(AVAILABLE, kernel, guest_cache), wrapper=wrapper)
    with Guest(hardware, Software(kernel), guest_cache, life=200) as guest:
        assert guest.run("echo yes").output == "yes\n"
    assert (tmp_path / "spoilt").is_dir()
