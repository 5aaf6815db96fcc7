# SPDX-License-Identifier: BSD-3-Clause
"""Whether KVM really runs a guest here: /dev/kvm may be there and a stock kernel hang on it."""

import os
import platform
import subprocess
import tempfile
from pathlib import Path

from preswapd.guest.cpio import Archive
from preswapd.guest.kernel import Kernel
from preswapd.guest.programs import static_busybox
from preswapd.guest.remembered import remembered
from preswapd.host.kernel import boot_id

KVM = Path("/dev/kvm")
PROBE = Path(__file__).with_name("probe.sh")
PROOF = "preswapd: this guest boots"
# Under KVM that guest is through within two seconds.
PROBE_SECONDS = 10

# What a guest runs on: QEMU's options.  Each virtual processor under emulation gets a thread.  The
# "fast" string instructions (ERMS) are emulated byte by byte: Linux would clear and copy every page
# by them.
ACCELERATORS = {
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    "tcg": ["-accel", "tcg,thread=multi", "-cpu", "max,erms=off"],
}


def choose(qemu: Path, kernel: Kernel, cache: Path) -> str:
    """ "kvm" where it was seen to boot this kernel since this host started, else "tcg"."""
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "tcg"
    key = f"{boot_id()} {platform.release()} {qemu} {kernel.image}"

    def find() -> str:
        return "kvm" if boots_under_kvm(qemu, kernel) else "tcg"

    return remembered(cache / "accelerator.json", key, find)


def boots_under_kvm(qemu: Path, kernel: Kernel) -> bool:
    archive = Archive()
    archive.character_device("/dev/console", 5, 1)
    archive.file("/bin/busybox", static_busybox().read_bytes(), 0o755)
    archive.file("/init", PROBE.read_bytes(), 0o755)
    with tempfile.NamedTemporaryFile(prefix="preswapd-probe-") as initramfs:
        initramfs.write(archive.to_bytes())
        initramfs.flush()
        try:
            done = subprocess.run(
                [
                    *(str(qemu), "-nodefaults", "-no-user-config", "-display", "none"),
                    *("-no-reboot", "-m", "128M", "-serial", "stdio", *ACCELERATORS["kvm"]),
                    *("-kernel", str(kernel.image), "-initrd", initramfs.name),
                    *("-append", "console=ttyS0 panic=-1 quiet"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=PROBE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return PROOF.encode() in done.stdout
