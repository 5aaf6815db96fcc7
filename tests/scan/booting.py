# SPDX-License-Identifier: BSD-3-Clause
"""A Debian of tests/scan/debian.py as a guest that runs the commands of its host."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from preswapd.guest.accelerator import ACCELERATORS
from preswapd.guest.channel import Channel, ChannelClosedError
from preswapd.guest.faults import GuestError
from preswapd.guest.programs import find
from preswapd.host.children import Child
from tests.scan.debian import Debian

BOOT_SECONDS = 600.0


def machine(debian: Debian, firmware: str, disks: Sequence[str]) -> list[str]:
    """QEMU's command line; `disks` are options of it that name their bus where they need one."""
    qemu = str(find("qemu-system-x86_64", "qemu-system-x86"))
    image = debian.firmware[firmware]
    return [
        *(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-machine", "q35", *ACCELERATORS["tcg"], "-m", "1G", "-smp", "1", "-serial", "stdio"),
        *(
            ("-bios", str(image))
            if firmware == "seabios"
            else ("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={image}")
        ),
        *disks,
    ]


@contextmanager
def booted(
    debian: Debian, disks: Sequence[str], folder: Path, *, root: str = ""
) -> Iterator[Channel]:
    """Its commands, once systemd has nothing more to start; what it writes to its root is lost.

    `root`: where QEMU finds the root disk's image, if not in its file.
    """
    with ExitStack() as stack:
        ours, theirs = socket.socketpair()
        channel = stack.enter_context(closing(Channel(ours)))
        with theirs:
            qemu = Child(
                [
                    *machine(debian, "seabios", disks),
                    *("-kernel", str(debian.kernel), "-initrd", str(debian.initramfs)),
                    *(
                        "-append",
                        "root=/dev/disk/by-id/virtio-root rw console=ttyS0 mitigations=off",
                    ),
                    "-drive",
                    f"if=none,id=root,file={root or debian.image},format=raw,snapshot=on",
                    *("-device", "virtio-blk-pci,drive=root,serial=root"),
                    *("-chardev", f"socket,id=commands,fd={theirs.fileno()}"),
                    *("-device", "virtio-serial-pci"),
                    *("-device", "virtserialport,chardev=commands,name=preswapd.commands"),
                ],
                folder / "guest.log",
                pass_fds=(theirs.fileno(),),
            )
        stack.callback(qemu.kill)
        try:
            channel.greeting(BOOT_SECONDS)
            channel.run("systemctl is-system-running --wait; udevadm settle", BOOT_SECONDS)
            yield channel
        except (TimeoutError, ChannelClosedError) as error:
            console = (folder / "guest.log").read_text(errors="replace").splitlines()[-20:]
            raise GuestError("\n".join(["the guest does not answer", *console])) from error
