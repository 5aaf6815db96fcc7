# SPDX-License-Identifier: BSD-3-Clause
"""`preswapctl`, but it waits only a moment for what a guest without a driver never says:
python tests/cli/park/hasty.py WORD...

The balloon of a firmware sends no statistics: each `park` would stand still for three seconds.
"""

from preswapd.cli import start
from preswapd.cli.park import balloon

if __name__ == "__main__":
    balloon.STATS_SECONDS = 0.2
    start.main()
