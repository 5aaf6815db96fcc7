# SPDX-License-Identifier: BSD-3-Clause
"""Where preswapctl begins: Ctrl-C may come while what every command needs is imported."""

import gc
import sys
from typing import NoReturn

from preswapd.host.inherited import start_over

INTERRUPTED = 130

# What is imported stays: nobody needs to look for garbage in it, now or later.
gc.disable()
try:
    from preswapd.cli import main as command
except KeyboardInterrupt:
    print("preswapctl: interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)
gc.freeze()
gc.enable()


def main() -> NoReturn:
    start_over()
    command.main()
