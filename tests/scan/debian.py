# SPDX-License-Identifier: BSD-3-Clause
"""A Debian with everything that looks at disks, as a tree and as the image of a root disk."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from preswapd.guest.faults import SetupError
from preswapd.guest.programs import find

# With what only one of them has.
SUITES = {"bookworm": ("dmraid",), "trixie": ()}
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
AGENT = Path(__file__).with_name("agent.sh")
BUILD_SECONDS = 1800
ROOM = 512 << 20

PACKAGES = (
    *(
        "systemd-sysv",
        "udev",
        "dbus",
        "kmod",
        "initramfs-tools",
        "busybox",
        "linux-image-cloud-amd64",
    ),
    *("lvm2", "mdadm", "multipath-tools", "kpartx", "dmsetup", "cryptsetup-bin", "btrfs-progs"),
    *("bcache-tools", "fdisk", "gdisk", "parted", "util-linux-extra", "e2fsprogs", "xfsprogs"),
    *("file", "lshw", "udisks2", "os-prober", "smartmontools", "hdparm", "sg3-utils", "nvme-cli"),
    *("grub-common", "grub-pc-bin", "grub-efi-amd64-bin", "xorriso", "mtools", "ovmf", "seabios"),
    "zfsutils-linux",
)

UNIT = """\
[Unit]
Description=Runs the commands of the host

[Service]
Type=idle
ExecStart=/usr/local/sbin/scan-agent
StandardOutput=null
"""


@dataclass(frozen=True)
class Debian:
    """A built one; `tree` is its root directory on this host."""

    suite: str
    tree: Path
    image: Path

    @property
    def kernel(self) -> Path:
        return newest(self.tree / "boot", "vmlinuz-*")

    @property
    def initramfs(self) -> Path:
        return newest(self.tree / "boot", "initrd.img-*")

    @property
    def firmware(self) -> dict[str, Path]:
        share = self.tree / "usr/share"
        ovmf = [share / "OVMF" / name for name in ("OVMF_CODE.fd", "OVMF_CODE_4M.fd")]
        return {
            "seabios": share / "seabios/bios-256k.bin",
            "ovmf": next(path for path in ovmf if path.exists()),
        }

    def version(self, package: str) -> str:
        asked = ["dpkg-query", "-W", "-f=${Version}", package]
        done = subprocess.run(["chroot", self.tree, *asked], capture_output=True, text=True)
        return done.stdout or "not installed"

    def grub(self, config: str) -> Path:
        """A disk from which SeaBIOS and OVMF start this Debian's GRUB."""
        with tempfile.TemporaryDirectory(dir=self.tree / "root") as folder:
            (Path(folder) / "boot/grub").mkdir(parents=True)
            (Path(folder) / "boot/grub/grub.cfg").write_text(config)
            inside = Path("/") / Path(folder).relative_to(self.tree)
            command(["chroot", str(self.tree), "grub-mkrescue", "-o", "/srv/grub.img", str(inside)])
        return self.tree / "srv/grub.img"


def newest(folder: Path, pattern: str) -> Path:
    return max(folder.glob(pattern))


def build(suite: str, folder: Path) -> Debian:
    """Made once in that folder: as root, and with this machine's package sources."""
    debian = Debian(suite, folder / suite, folder / f"{suite}.img")
    if not debian.image.exists():
        shutil.rmtree(debian.tree, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        make_tree(debian)
        make_image(debian)
    return debian


def make_tree(debian: Debian) -> None:
    sources = debian.tree.with_suffix(".sources")
    text = SOURCES.read_text()
    here = re.search(r"^Suites: (\w+)", text, re.M)
    if here is None:
        raise SetupError(f"{SOURCES} names no suite")
    text = text.replace(here[1], debian.suite)
    # ZFS is there.
    sources.write_text(re.sub(r"^Components: .*", "Components: main contrib", text, flags=re.M))
    command(
        [
            *(str(find("mmdebstrap", "mmdebstrap")), "--quiet", "--variant=minbase"),
            *(
                f"--include={','.join([*PACKAGES, *SUITES[debian.suite]])}",
                debian.suite,
                str(debian.tree),
                str(sources),
            ),
        ]
    )
    etc = debian.tree / "etc/systemd/system"
    (etc / "scan-agent.service").write_text(UNIT)
    wanted = etc / "multi-user.target.wants/scan-agent.service"
    wanted.parent.mkdir(exist_ok=True)
    wanted.symlink_to("/etc/systemd/system/scan-agent.service")
    agent = debian.tree / "usr/local/sbin/scan-agent"
    shutil.copyfile(AGENT, agent)
    agent.chmod(0o755)


def make_image(debian: Debian) -> None:
    taken = command(["du", "--summarize", "--block-size=1", str(debian.tree)])
    fresh = debian.image.with_suffix(".new")
    with fresh.open("wb") as file:
        file.truncate(int(taken.split()[0]) * 5 // 4 + ROOM)
    mkfs = str(find("mke2fs", "e2fsprogs"))
    command([mkfs, "-q", "-t", "ext4", "-F", "-d", str(debian.tree), str(fresh)])
    fresh.rename(debian.image)


def command(arguments: list[str]) -> str:
    done = subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise SetupError(f"{arguments[0]} ended with status {done.returncode}: {last}")
    return done.stdout
