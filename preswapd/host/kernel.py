# SPDX-License-Identifier: BSD-3-Clause
"""What this host's kernel says of itself."""

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MACHINE_ID = Path("/etc/machine-id")


def boot_id() -> str:
    """The host's boot id: another one after each boot."""
    return BOOT_ID.read_text().strip()


def machine_id() -> str:
    """The host's own, the same after each boot (machine-id(5)); empty where it has none."""
    try:
        return MACHINE_ID.read_text().strip()
    except OSError:
        return ""


def is_on(parameter: Path) -> bool:
    """Whether a parameter of a kernel module says yes; False where the module is not loaded."""
    try:
        return parameter.read_text().strip() in {"Y", "1"}
    except OSError:
        return False
