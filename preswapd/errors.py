# SPDX-License-Identifier: BSD-3-Clause
"""What can go wrong, as the user meets it.

PreswapError        exit status 1: it was tried and failed
├── UsageError      2: a bad option, name or value
├── UnreachableError  3: no server answers
├── RefusedError    4: nothing was changed
│   └── MisfitError   2: nor will anything be by trying again
├── PartialError    5: partly done, run it again to go on
└── PageDamagedError  a stored page that cannot be returned as it was put
"""


class PreswapError(Exception):
    """Base of all errors that are reported in one sentence."""

    exit_status = 1


class UsageError(PreswapError):
    """A bad option, name, size or configuration value."""

    exit_status = 2


class UnreachableError(PreswapError):
    """No server answers on the control socket."""

    exit_status = 3


class RefusedError(PreswapError):
    """The request was refused and nothing was changed."""

    exit_status = 4


class MisfitError(RefusedError):
    """It is installed in a way that cannot work.  systemd tries again after 4, and not after 2."""

    exit_status = 2


class PartialError(PreswapError):
    """A part was done; running the command again goes on."""

    exit_status = 5


class PageDamagedError(PreswapError):
    """A page's checksum does not fit: its reader gets an I/O error, never wrong data."""


def with_place(error: BaseException) -> str:
    """An unexpected exception for the log: with the place that it came from, in one line."""
    text = f"{type(error).__name__}: {error}"
    frame = error.__traceback__
    if frame is None:
        return text
    while frame.tb_next is not None:
        frame = frame.tb_next
    return f"{text} at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
