# SPDX-License-Identifier: BSD-3-Clause
"""The host reboots between a guest's save and its return: a real systemd, and a real guest.

The second systemd has another boot id, and shared memory is gone; /var/lib is as it was left.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from preswapd.guest.kernel import default_cache, find_kernel
from tests.guest.stamped import StampedGuest
from tests.running import GUEST_PATIENCE, RunningServer
from tests.systemd.booted import Booted, NotPossibleError
from tests.systemd.test_service import install_units

pytestmark = [
    pytest.mark.guest,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("systemd"),
]

CONFIG = 'pool-size = "16M"\n[device.g1]\nsize = "64M"\n'
SERVER, RUNTIME = "preswapd@vm1", "/run/preswapd/vm1"
# A unit has a /proc of its own, and in it the boot id of the host below this one.
BOOT_ID = "[Service]\nBindReadOnlyPaths=/run/boot_id:/proc/sys/kernel/random/boot_id\n"
SWAP = "/var/lib/vm1.swap"

Boot = Callable[..., StampedGuest]


class Host(Booted):
    """With an instance vm1, whose guest's QEMU runs outside."""

    def ctl(self, *arguments: str) -> str:
        ctl = ("/opt/preswapd/bin/preswapctl", f"--runtime-dir={RUNTIME}")
        return self.run(*ctl, *arguments, timeout=GUEST_PATIENCE)

    def json_stats(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(self.ctl("--json", "stats")))

    def unknown_reads(self) -> int:
        return int(self.json_stats()["devices"]["g1"]["unknown_reads"])


@contextmanager
def host(kept: Path) -> Iterator[Host]:
    try:
        with Host(kept=kept) as booted:
            install_units(booted)
            for unit in ("preswapd@", "preswapd-sync@"):
                folder = booted.path(f"/etc/systemd/system/{unit}.service.d")
                folder.mkdir(exist_ok=True)
                (folder / "boot-id.conf").write_text(BOOT_ID)
            booted.path("/etc/preswapd/vm1.toml").write_text(CONFIG)
            booted.run("systemctl", "daemon-reload")
            booted.run("systemctl", "enable", "--now", SERVER)
            booted.wait_for("preswapd-sync@vm1", "ActiveState", "active")
            yield booted
    except NotPossibleError as error:
        pytest.skip(str(error))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def saved(tmp_path: Path) -> str:
    return str(tmp_path / "vm1.save")


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """A guest on a host's vm1, with the disk that qemu-args prints there."""
    cache = default_cache()
    kernel = find_kernel(cache)
    with ExitStack() as stack:

        def start(host: Host, **options: Any) -> StampedGuest:
            # From outside the path is longer than a socket's name may be.
            run = tmp_path / "run"
            run.unlink(missing_ok=True)
            run.symlink_to(host.path(RUNTIME))
            printed = json.loads(host.ctl("--json", "qemu-args", "--bus", "virtio", "g1"))
            hardware = [text.replace(f"{RUNTIME}/nbd.sock", f"{run}/nbd.sock") for text in printed]
            server = cast(RunningServer, host)
            guest = StampedGuest(server, kernel, cache, tmp_path, hardware=hardware, **options)
            return stack.enter_context(guest)

        yield start


def save_guest(host: Host, boot: Boot, saved: str) -> None:
    """It has swapped, and its memory goes to a file."""
    guest = boot(host)
    guest.fill()
    guest.assert_all_right("w")
    guest.migrate(f"exec:cat >{saved}")
    guest.__exit__()


def check_guest(host: Host, boot: Boot, saved: str) -> None:
    """It comes back, and finds every page."""
    before = host.unknown_reads()
    guest = boot(host, incoming=f"exec:cat {saved}")
    guest.assert_all_right("cwc")
    assert (guest.troubles(), guest.stops()) == ([], [])
    assert host.unknown_reads() == before
    guest.__exit__()


def boot_id(host: Host) -> str:
    return host.run("cat", "/proc/sys/kernel/random/boot_id")


def test_orderly_reboot(kept: Path, boot: Boot, saved: str) -> None:
    """Nothing is to be done for it."""
    with host(kept) as before:
        save_guest(before, boot, saved)
        old = boot_id(before)
        before.reboot()
    with host(kept) as after:
        assert boot_id(after) != old
        check_guest(after, boot, saved)


def test_host_that_goes_down_at_once(kept: Path, boot: Boot, saved: str) -> None:
    """Without a save of its swap it meets errors; with that it finds every page."""
    with host(kept) as before:
        save_guest(before, boot, saved)
        before.ctl("save", "g1", SWAP)
        old = boot_id(before)
    with host(kept) as after:
        assert boot_id(after) != old
        guest = boot(after, incoming=f"exec:cat {saved}")
        guest.order_soon("c")
        guest.assert_pauses()
        assert after.unknown_reads() > 0
        guest.__exit__()
        # What it has written in the meantime.
        after.ctl("swapoff", "g1", "--yes")
        after.ctl("restore", "g1", SWAP)
        check_guest(after, boot, saved)
