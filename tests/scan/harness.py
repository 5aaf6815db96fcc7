# SPDX-License-Identifier: BSD-3-Clause
"""Logs what a real Debian reads on fresh swap disks, and compares that with the scan zone.

    .venv/bin/python -m tests.scan.harness bookworm
    .venv/bin/python -m tests.scan.harness trixie --json found.json

Makes a Debian of that release with udev, LVM, mdadm, multipath and more of what looks at disks
(once, in ~/.cache/preswapd/scan; needs root, mmdebstrap, e2fsprogs and this machine's package
sources), and boots it in QEMU with disks of several sizes, all zeros and with our header, on
virtio-scsi and virtio-blk. What is read of each disk is logged by nbdkit: by SeaBIOS and OVMF with
GRUB, while the guest boots, and by one tool after the other, each with an empty page cache.

Exit status 1 when something outside the zone was read that is not expected to be.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from preswapd.guest.channel import Channel, Outcome
from preswapd.guest.faults import GuestError
from preswapd.guest.kernel import default_cache
from preswapd.host.children import Child
from tests.scan.booting import booted, machine
from tests.scan.debian import SUITES, Debian, build
from tests.scan.logged import LoggedDisk, Shape, Span, outside_zone

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
STEP_SECONDS = 300.0
FIRMWARE_SECONDS = 120.0
PACKAGES = (
    *("linux-image-cloud-amd64", "systemd", "util-linux", "lvm2", "mdadm", "multipath-tools"),
    *("parted", "gdisk", "zfsutils-linux", "grub-common", "ovmf", "seabios", "udisks2"),
)

SHAPES = (
    *(Shape(f"zeros-{name}", size, False) for name, size in (("8M", 8 * MIB), ("8G", 8 * GIB))),
    *(
        Shape(f"header-{name}", size, True)
        for name, size in (("8M", 8 * MIB), ("64M", 64 * MIB), ("256M", 256 * MIB), ("8G", 8 * GIB))
    ),
    # No multiple of 64K nor of 256K.
    Shape("zeros-odd", 100 * MIB + 212 * KIB, False),
    Shape("header-odd", 100 * MIB + 212 * KIB, True),
)
# As virtio-blk: the others are virtio-scsi.
ON_VIRTIO_BLK = ("header-64M", "zeros-odd")

# What is run for each disk, $d.
TOOLS = (
    *("blockdev --rereadpt $d", "partprobe $d", "partx --show $d"),
    *("blkid -p $d", "blkid -c /dev/null $d", "wipefs $d", "lsblk -f $d", "findfs LABEL=nothing"),
    *("fdisk -l $d", "sfdisk --dump $d", "sfdisk --verify $d", "gdisk -l $d", "parted -s $d print"),
    *("pvscan --cache $d", "pvs -a $d", "pvck $d", "mdadm --examine $d", "mdadm --incremental $d"),
    *("multipath -c $d", "multipath -u $d", "kpartx -l $d", "dmraid -r $d", "zdb -l $d"),
    *("btrfs device scan $d", "bcache-super-show $d", "cryptsetup isLuks $d", "dumpe2fs -h $d"),
    *("grub-probe -d -t fs $d", "smartctl -a $d", "hdparm -I $d", "sg_inq $d", "swaplabel $d"),
    *("fsck -N $d", "xfs_db -r -c sb $d", "tune2fs -l $d", "systemd-dissect $d", "file -s $d"),
)
# What is run once, for all disks.
WHOLE = (
    "udevadm trigger --action=add --subsystem-match=block; udevadm settle",
    "udevadm trigger --action=change --subsystem-match=block; udevadm settle",
    *("blkid -c /dev/null", "fdisk -l", "parted -s -l", "lsblk -f", "pvscan", "vgscan", "pvs -a"),
    """pvs -a --config 'devices/md_component_checks="full"'""",
    *("vgchange -ay", "lvmdiskscan", "mdadm --examine --scan", "mdadm --assemble --scan"),
    *("multipath -v3 -d", "multipath -ll", "multipathd show paths", "zpool import"),
    *("btrfs filesystem show", "os-prober", "grub-mkdevicemap -m /run/map", "udisksctl dump"),
    *("lshw -quiet", "sfdisk --list", "cat /proc/partitions", "systemctl daemon-reload"),
)
# What writes, last; a disk of zeros becomes a swap area of the guest's own.
LAST = (
    "blkid -p -o value -s TYPE $d | grep -q swap || mkswap $d",
    "swapon $d",
    "swapoff $d",
    "swapon --discard $d",
    "swapoff $d",
)
# These read whole stretches of a disk by hand only, and no guest does so by itself.
BY_HAND = ("file -s $d",)

GRUB_LOOKS = """
insmod all_video
search --no-floppy --set=found --fs-uuid 01234567-89ab-cdef-0123-456789abcdef
search --no-floppy --set=found --label nothing
ls
ls -l
halt
"""

Reads = dict[str, list[Span]]


def main() -> int:
    given = arguments()
    debian = build(given.suite, default_cache() / "scan")
    print(", ".join(f"{package} {debian.version(package)}" for package in PACKAGES), flush=True)
    found: dict[str, Reads] = {}
    with tempfile.TemporaryDirectory(prefix="preswapd-scan-") as folder:
        for firmware in debian.firmware:
            found[f"{firmware}, GRUB"] = note(
                f"{firmware}, GRUB", look_by_grub(debian, firmware, Path(folder))
            )
        for step, reads in look_in_guest(debian, Path(folder)):
            found[step] = note(step, reads)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    return verdict(found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scan.harness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--json", type=Path, help="a file for all reads, in bytes")
    return parser.parse_args()


# --- what is looked at ---


@contextmanager
def logged_disks(folder: Path) -> Iterator[list[LoggedDisk]]:
    with ExitStack() as stack, tempfile.TemporaryDirectory(dir=folder) as inside:
        yield [stack.enter_context(LoggedDisk(shape, Path(inside))) for shape in SHAPES]


def look_by_grub(debian: Debian, firmware: str, folder: Path) -> Reads:
    """The firmware starts GRUB from another disk, which then looks for a file system everywhere."""
    image = debian.grub(GRUB_LOOKS)
    with logged_disks(folder) as disks, ExitStack() as stack:
        qemu = Child(
            [
                *machine(debian, firmware, options(disks)),
                *("-drive", f"if=none,id=grub,file={image},format=raw,snapshot=on"),
                *("-device", "virtio-blk-pci,drive=grub,bootindex=0"),
            ],
            folder / f"{firmware}.log",
        )
        stack.callback(qemu.kill)
        try:
            qemu.wait(FIRMWARE_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"{firmware} had not ended after {FIRMWARE_SECONDS:.0f} s", flush=True)
        return {disk.shape.name: disk.reads() for disk in disks}


def look_in_guest(debian: Debian, folder: Path) -> Iterator[tuple[str, Reads]]:
    with logged_disks(folder) as disks, booted(debian, options(disks), folder) as channel:
        guest = LookingGuest(channel, disks)
        yield "boot", guest.reads()
        guest.find_disks()
        for step in WHOLE:
            yield step, guest.look(step)
        for step in (*TOOLS, *LAST):
            yield step, guest.look_at_each(step)
        print(guest.run("dmesg | grep -i swap").output, flush=True)


def options(disks: Sequence[LoggedDisk]) -> list[str]:
    """QEMU's, for all of them."""
    made = ["-device", "virtio-scsi-pci,id=scsi"]
    for disk in disks:
        name = disk.shape.name
        node = {
            "driver": "nbd",
            "node-name": name,
            "server": {"type": "unix", "path": str(disk.socket)},
            "discard": "unmap",
            "cache": {"direct": True, "no-flush": False},
        }
        kind = "virtio-blk-pci" if name in ON_VIRTIO_BLK else "scsi-hd,bus=scsi.0,rotation_rate=1"
        made += ["-blockdev", json.dumps(node)]
        made += ["-device", f"{kind},drive={name},serial={name},werror=stop,rerror=stop"]
    return made


class LookingGuest:
    """A guest that runs commands, and what its disks were asked for meanwhile."""

    def __init__(self, channel: Channel, disks: Sequence[LoggedDisk]) -> None:
        self._channel = channel
        self._disks = disks
        self._paths: dict[str, str] = {}

    def run(self, command: str, timeout: float = STEP_SECONDS) -> Outcome:
        return self._channel.run(command, timeout)

    def find_disks(self) -> None:
        for line in self.run(
            "lsblk --nodeps --noheadings --output PATH,SERIAL"
        ).output.splitlines():
            path, *serial = line.split()
            if serial:
                self._paths[serial[0]] = path
        missing = {disk.shape.name for disk in self._disks} - self._paths.keys()
        if missing:
            raise GuestError(f"the guest has no disks {missing}: it has {self._paths}")

    def reads(self) -> Reads:
        return {disk.shape.name: disk.reads() for disk in self._disks}

    def look(self, command: str) -> Reads:
        moments = self._forget()
        outcome = self.run(command)
        if outcome.status:
            print(f"({command}: status {outcome.status}: {outcome.output.strip()[-200:]!r})")
        return {
            disk.shape.name: disk.reads(moment)
            for disk, moment in zip(self._disks, moments, strict=True)
        }

    def look_at_each(self, command: str) -> Reads:
        paths = " ".join(self._paths[disk.shape.name] for disk in self._disks)
        return self.look(f"s=0; for d in {paths}; do {command} || s=$?; done; (exit $s)")

    def _forget(self) -> list[int]:
        self.run("udevadm settle; sync; echo 3 >/proc/sys/vm/drop_caches")
        return [disk.moment() for disk in self._disks]


# --- what was found ---


def note(step: str, reads: Reads) -> Reads:
    print(f"{time.strftime('%H:%M:%S')} {step}", flush=True)
    for shape in SHAPES:
        if spans := reads[shape.name]:
            print(f"    {shape.name}: {', '.join(text(span, shape.size) for span in spans)}")
            if beyond := outside_zone(spans, shape.size):
                listed = ", ".join(text(span, shape.size) for span in beyond)
                print(f"    {shape.name} OUTSIDE: {listed}", flush=True)
    return reads


def text(span: Span, size: int) -> str:
    """In bytes, K or M; what lies in the second half from the end."""
    if span.start < size // 2:
        return f"{amount(span.start)}+{amount(span.end - span.start)}"
    return f"-{amount(size - span.start)}+{amount(span.end - span.start)}"


def amount(size: int) -> str:
    for unit, name in ((MIB, "M"), (KIB, "K")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def verdict(found: dict[str, Reads]) -> int:
    wrong = [
        step
        for step, reads in found.items()
        for shape in SHAPES
        if step not in BY_HAND and outside_zone(reads[shape.name], shape.size)
    ]
    for step in dict.fromkeys(wrong):
        print(f"outside the zone: {step}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
