"""Where preswapctl begins: what it needs takes a tenth of a second to load, and Ctrl-C may come
then."""

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
