# SPDX-License-Identifier: BSD-3-Clause
"""Which files are disks in a format of their own: given as raw, a guest would see another disk."""

import os

from preswapd.units import PAGE_SIZE

# Where the first bytes say so; raw disks have a boot sector, a file system or zeros there.
MAGICS = {
    b"QFI\xfb": "qcow2",
    b"QED\0": "qed",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vpc",
}
VDI_AT, VDI_MAGIC = 64, b"\x7f\x10\xda\xbe"


def format_of(descriptor: int) -> str | None:
    """As qemu-img calls it; None: raw, as far as its beginning tells."""
    start = os.pread(descriptor, PAGE_SIZE, 0)
    if start[VDI_AT : VDI_AT + len(VDI_MAGIC)] == VDI_MAGIC:
        return "vdi"
    return next((name for magic, name in MAGICS.items() if start.startswith(magic)), None)
