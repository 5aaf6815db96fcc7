# SPDX-License-Identifier: BSD-3-Clause
"""TLS to another host's server: each of the two shows a certificate."""

import os
import socket
import ssl
from pathlib import Path

from preswapd.errors import PreswapError

# As other clients of NBD have them in a directory.
AUTHORITY, CERTIFICATE, KEY = "ca-cert.pem", "client-cert.pem", "client-key.pem"


class TlsError(PreswapError):
    """The keys cannot be used, or the two do not trust each other."""


def secured(made: socket.socket, keys: Path, name: str) -> ssl.SSLSocket:
    """Whoever answers has a certificate for `name` from the authority of these keys.  TlsError;
    OSError where the two do not come together by the socket's timeout."""
    try:
        return context_of(keys).wrap_socket(made, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise TlsError(f"its certificate does not count: {error.verify_message}") from None
    except (ssl.SSLEOFError, ConnectionError):
        raise TlsError(f"it has no certificate, or does not let that of {keys} in") from None
    except ssl.SSLError as error:
        raise TlsError(f"no TLS with it: {error.reason or error}") from None


def context_of(keys: Path) -> ssl.SSLContext:
    """Read anew for each connection, so that new keys count at once."""
    for each in (AUTHORITY, CERTIFICATE, KEY):
        check(keys / each)
    try:
        context = ssl.create_default_context(cafile=str(keys / AUTHORITY))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # From Python 3.13 on, by default, an authority without the extension keyUsage is none.  The
        # server and its guests (GnuTLS) take it, and `openssl req -x509` makes such ones.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        # Without a word for a key that needs one, nobody is asked at a terminal.
        context.load_cert_chain(keys / CERTIFICATE, keys / KEY, password=lambda: "")
    except (OSError, ValueError) as error:
        raise TlsError(f"the keys in {keys} cannot be used: {error}") from None
    return context


def check(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = f": let user {os.geteuid()} read it, and nobody else"
        raise TlsError(f"{path}: {error.strerror}{hint}") from None
