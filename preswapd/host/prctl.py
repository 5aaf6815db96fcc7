# SPDX-License-Identifier: BSD-3-Clause
"""What only prctl(2) sets: what comes when the process that started us ends, a thread's name.

nbdkit in the foreground asks for a SIGTERM at its parent's end (PR_SET_PDEATHSIG), so that a server
started in the background of a shell would end with that shell.  What was asked for before nbdkit
ran is what counts.
"""

import ctypes

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_SET_NAME = 1, 2, 15

libc = ctypes.CDLL(None)


def death_signal() -> int:
    """The signal that this process gets; 0: none."""
    number = ctypes.c_int()
    libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(number))
    return number.value


def set_death_signal(number: int) -> None:
    """For the calling thread alone: nbdkit's was asked for by its first thread."""
    libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number))


def name_thread(name: str) -> None:
    """The calling thread's, as `top -H` shows it: its first 15 bytes."""
    libc.prctl(PR_SET_NAME, name.encode())
