# SPDX-License-Identifier: BSD-3-Clause
"""Messages to the service manager (sd_notify(3))."""

import os
import socket
from contextlib import suppress

# A manager that hangs reads nothing.
PATIENCE_SECONDS = 1.0


def notify(*assignments: str) -> None:
    """Sends lines such as READY=1, or nothing where there is no service manager (any more)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    # No descriptor may be left either, and a stop must go on.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(address)
        sock.sendall("\n".join(assignments).encode())
