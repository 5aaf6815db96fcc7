# SPDX-License-Identifier: BSD-3-Clause
"""Where preswapctl begins: Ctrl-C may come while what every command needs is imported."""

import sys
from typing import NoReturn

INTERRUPTED = 130

try:
    from preswapd.cli import main as command
except KeyboardInterrupt:
    print("preswapctl: interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)


def main() -> NoReturn:
    command.main()
