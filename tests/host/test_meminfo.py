# SPDX-License-Identifier: BSD-3-Clause
"""/proc/meminfo, as a kernel writes it."""

from pathlib import Path

from preswapd.host.meminfo import amounts, available_memory

TEXT = """\
MemTotal:         124752 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""


def test_amounts_only() -> None:
    assert amounts(TEXT) == {"MemTotal": 124752 << 10, "Hugepagesize": 2048 << 10}


def test_available_memory(tmp_path: Path) -> None:
    file = tmp_path / "meminfo"
    assert available_memory(file) is None
    file.write_text(TEXT)
    assert available_memory(file) is None
    file.write_text(f"{TEXT}MemAvailable:       3072 kB\n")
    assert available_memory(file) == 3 << 20
    assert available_memory()
