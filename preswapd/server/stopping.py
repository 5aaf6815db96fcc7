# SPDX-License-Identifier: BSD-3-Clause
"""The signals that end the server, and how they are kept from ending it the wrong way."""

import signal

# All that make nbdkit stop.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


def hold_back() -> None:
    """Blocks them from now on, until sigwait() takes them; also after exec and in new threads."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def wanted() -> list[signal.Signals]:
    """Those that end this server: not a hang-up of the terminal after nohup(1)."""
    ignores = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in SIGNALS if not (ignores and number == signal.SIGHUP)]
