# SPDX-License-Identifier: BSD-3-Clause
"""A real `preswapd govern` on a host whose memory is made up, because a test cannot make a real
host short of it: python -m tests.govern.governor MEMORY ROOT WORD...

The file MEMORY says how much there would be without pools; what is available is that, less what
the arenas below ROOT really take.  All else is as it is: instances, sockets, pages.
"""

import sys
from pathlib import Path
from unittest.mock import patch

from preswapd.__main__ import preswapd
from preswapd.commandline import run
from preswapd.govern import command
from preswapd.govern.readings import Host

BLOCK = 512
MEMORY, ROOT = map(Path, sys.argv[1:3])


class MadeUp(Host):
    def available(self) -> int:
        arenas = (path.stat().st_blocks * BLOCK for path in ROOT.glob("**/arena"))
        return max(0, int(MEMORY.read_text()) - sum(arenas))


if __name__ == "__main__":
    sys.argv[1:] = sys.argv[3:]
    with patch.object(command, "Host", MadeUp):
        run(preswapd, "preswapd")
