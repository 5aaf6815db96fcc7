# SPDX-License-Identifier: BSD-3-Clause
"""`python -m preswapd.remote.courier --fd N`, its settings on standard input: started by a server,
never by hand."""

import argparse
import gc
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from preswapd.host.prctl import death_signal, set_death_signal
from preswapd.log import ERROR, log
from preswapd.remote.courier.frames import FrameError
from preswapd.remote.courier.server import ServerGone
from preswapd.remote.courier.settings import Settings, SettingsError, read_settings

try:
    from preswapd.remote.courier.courier import Courier
except ModuleNotFoundError as error:
    if str(error.name).split(".")[0] not in ("redis", "hiredis"):
        raise
    log(ERROR, "the remote tier needs redis-py and hiredis: pip install 'preswapd[remote]'")
    sys.exit(2)

# The thread that connects must not keep a read waiting for Python's usual 5 ms.
SWITCH_SECONDS = 0.0002
# It takes 30 MiB, and what is bounded elsewhere.  A store that announces a list of a thousand
# million entries makes the parser ask for all of them.
MOST_MEMORY = 1 << 30
OOM_SCORE = Path("/proc/self/oom_score_adj")


def main() -> int:
    parser = argparse.ArgumentParser(prog="preswapd.remote.courier")
    parser.add_argument("--fd", type=int, required=True, help="the socket to the server")
    fd: int = parser.parse_args().fd
    watch_signals()
    give_up_protection()
    try:
        settings = read_settings(sys.stdin.read())
    except SettingsError as error:
        log(ERROR, f"courier: {error}")
        return 2
    sys.stdin.close()
    with socket.socket(fileno=fd) as sock:
        return serve(sock, settings)


def watch_signals() -> None:
    """A terminal's Ctrl-C is the server's; what ends the server ends this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    if not death_signal():
        set_death_signal(signal.SIGKILL)


def give_up_protection(score: Path = OOM_SCORE) -> None:
    """A unit keeps its server from being killed where memory is short, by a score that what it
    starts inherits.  To kill this one first costs a guest nothing."""
    with suppress(OSError):
        if int(score.read_text()) < 0:
            score.write_text("0")


def end(_number: int, _frame: object) -> NoReturn:
    # Threads that wait for a host that is away are not waited for.
    os._exit(0)


def serve(sock: socket.socket, settings: Settings) -> int:
    sys.setswitchinterval(SWITCH_SECONDS)
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    # What was imported stays: it is not looked through again and again while a read waits.
    gc.collect()
    gc.freeze()
    try:
        Courier(sock, settings).run()
    except ServerGone:
        return 0
    except FrameError as error:
        log(ERROR, f"courier: what the server says is {error}")
        return 1


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)
