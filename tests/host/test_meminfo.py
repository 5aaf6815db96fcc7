# SPDX-License-Identifier: BSD-3-Clause
"""/proc/meminfo, as a kernel writes it."""

from pathlib import Path

from preswapd.host.meminfo import LISTED, ZONEINFO, amounts, available_memory, listed_memory

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


ZONES = """\
Node 0, zone    DMA32
  pages free     3840
        min      10
  pagesets
    cpu: 0
              count:    250
              high:     1638
              batch:    63
    cpu: 1
              count:    6
Node 0, zone   Normal
    cpu: 0
              count:    1000
"""


def test_pages_on_the_lists_of_processors(tmp_path: Path) -> None:
    file = tmp_path / "zoneinfo"
    assert listed_memory(file) == 0
    file.write_text(ZONES)
    assert listed_memory(file) == 1256 * 4096
    assert LISTED.search(ZONEINFO.read_text())  # as this host's kernel writes it
