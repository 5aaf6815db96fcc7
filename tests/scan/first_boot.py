# SPDX-License-Identifier: BSD-3-Clause
"""Boots a real Debian with a preswapd disk that is new, and again after its host lost its memory.

    .venv/bin/python -m tests.scan.first_boot bookworm
    .venv/bin/python -m tests.scan.first_boot trixie

The guest of tests/scan/harness.py, with everything of Debian that looks at disks, gets disks of a
real server: on virtio-scsi and on virtio-blk. It boots, turns both on, swaps, and reads all of its
memory again. Then guest and server are killed and the host's shared memory goes, and a guest
boots once more on what is left: most of it is unknown to the server, whose answer to a read of that
is an I/O error. What a guest looks at before it swaps is known all the same.

Exit status 1 if the guest saw an I/O error, lost a page, or read what is unknown.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from preswapd.guest.channel import Channel
from preswapd.guest.kernel import default_cache
from tests.running import RunningServer
from tests.scan.booting import booted
from tests.scan.debian import SUITES, build

DEVICES = {"scsi": "1G", "virtio": "256M"}  # each on the bus of its name
STEP_SECONDS = 600.0
# Pages that compress and pages that do not, more than the guest's 1 GiB of memory has room for.
SWAP = """
set -e
for name in scsi virtio; do swapon --discard --priority 5 LABEL=$name; done
mkdir /fill; mount -t tmpfs -o size=4G none /fill
{ head -c 200M /dev/urandom; seq 1000000000 1999999999 2>/dev/null | head -c 900M; } >/fill/data
sum=$(sha256sum </fill/data)
swapon --show --bytes --noheadings
echo 3 >/proc/sys/vm/drop_caches
[ "$(sha256sum </fill/data)" = "$sum" ]
"""
LOOK_AGAIN = """
udevadm trigger --action=change --subsystem-match=block; udevadm settle
blkid -c /dev/null; pvscan; vgchange -ay; mdadm --assemble --scan; multipath -ll; lsblk -f
systemctl daemon-reload
"""
ERRORS = "dmesg | grep -iE 'I/O error|critical (medium|target)|Read-error|hung_task|Out of memory'"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scan.first_boot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", choices=SUITES)
    debian = build(parser.parse_args().suite, default_cache() / "scan")
    wrong = []
    with (
        tempfile.TemporaryDirectory(prefix="preswapd-first-boot-") as folder,
        RunningServer(Path(folder), DEVICES, "256M") as server,
    ):
        for moment in ("on new devices", "after a kill and a reboot of the host"):
            with booted(debian, disks(server), Path(folder)) as guest:
                note(f"{guest.run('uname -r', STEP_SECONDS).output.strip()} booted {moment}")
                wrong += seen_wrong(server, guest, moment)
                server.kill()
            server.reboot()
            server.start()
    print("\n".join(wrong) or "no error, no page lost, nothing read that is unknown")
    return 1 if wrong else 0


def disks(server: RunningServer) -> list[str]:
    """As qemu-args prints them, which is what a guest should be started with."""
    printed = [server.ctl("--json", "qemu-args", "--bus", name, name).stdout for name in DEVICES]
    return [option for options in printed for option in json.loads(options)]


def seen_wrong(server: RunningServer, guest: Channel, moment: str) -> list[str]:
    wrong = []
    counters = server.json_stats()["devices"]
    note(", ".join(f"{name}: {counters[name]['unknown_pages']} pages unknown" for name in DEVICES))
    for step in (LOOK_AGAIN, SWAP):
        outcome = guest.run(step, STEP_SECONDS)
        note(outcome.output.strip())
        if step is SWAP and outcome.status:
            wrong.append(f"{moment}: swapping ended with status {outcome.status}")
    if errors := guest.run(ERRORS, STEP_SECONDS).output:
        wrong.append(f"{moment}: {errors}")
    counters = server.json_stats()["devices"]
    for name in DEVICES:
        device = counters[name]
        note(f"{name}: {device['loads']} gets, {device['disk_reads']} disk reads")
        if device["unknown_reads"] or not device["loads"] + device["disk_reads"]:
            wrong.append(f"{moment}: {name}: {device}")
    return wrong


def note(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
