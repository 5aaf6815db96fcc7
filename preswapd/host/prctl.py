# SPDX-License-Identifier: BSD-3-Clause
"""What comes when the process that started us ends: prctl(2), PR_SET_PDEATHSIG.

nbdkit in the foreground asks for a SIGTERM then, so that a server started in the background
of a shell would end with that shell.  What was asked for before nbdkit ran is what counts.
"""

import ctypes

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2

libc = ctypes.CDLL(None)


def death_signal() -> int:
    """The signal that this process gets; 0: none."""
    number = ctypes.c_int()
    libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(number))
    return number.value


def set_death_signal(number: int) -> None:
    """For the calling thread alone: nbdkit's was asked for by its first thread."""
    libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number))
