# SPDX-License-Identifier: BSD-3-Clause
"""What to look at where an address cannot be listened on, by the system's word for why."""

import errno
import os


def where_to_look(error: str, port: int) -> str:
    if os.strerror(errno.EADDRNOTAVAIL) in error:
        return "`ip address` shows which addresses this host has"
    if os.strerror(errno.EACCES) in error:
        return "a port below 1024 is for root alone"
    if os.strerror(errno.EAFNOSUPPORT) in error:
        return "this host has no IPv6"
    return f"`ss -ltnp sport = :{port}` shows who has the port"
