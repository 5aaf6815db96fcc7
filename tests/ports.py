# SPDX-License-Identifier: BSD-3-Clause
"""TCP ports of loopback that are one test's alone."""

import secrets
import socket
from contextlib import suppress

# Below what Linux gives to clients that did not ask for a port (32768 to 60999), since such a
# client may take any of those between the moment that a port was chosen and its server's start.
CHOSEN_FROM = range(10_000, 32_768)

# Held until this process ends, so that tests of other processes choose other ports.
_claims: list[socket.socket] = []


def free_port() -> int:
    """One that nobody listens on, and that no other test is given while this process lives."""
    while True:
        port = secrets.choice(CHOSEN_FROM)
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with suppress(OSError):
            claim.bind(f"\0preswapd-test-port-{port}")
            with socket.create_server(("127.0.0.1", port)):
                _claims.append(claim)
                return port
        claim.close()
