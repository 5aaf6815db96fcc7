"""Where preswapctl begins: what it needs takes a tenth of a second to load, and Ctrl-C may come
then."""

import sys
from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    try:
        from preswapd.cli.main import main as run
    except KeyboardInterrupt:
        print("preswapctl: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    run()
