"""/proc/meminfo, as a kernel writes it."""

from preswapd.host.meminfo import amounts

TEXT = """\
MemTotal:         124752 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""


def test_amounts_only() -> None:
    assert amounts(TEXT) == {"MemTotal": 124752 << 10, "Hugepagesize": 2048 << 10}
