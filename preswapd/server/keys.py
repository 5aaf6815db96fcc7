# SPDX-License-Identifier: BSD-3-Clause
"""The keys of TLS: whether nbdkit can use them, found out before this process becomes nbdkit, which
would end where it cannot; and how it is told to."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from preswapd.api.kinds import X509
from preswapd.errors import RefusedError
from preswapd.host.certificates import first_end
from preswapd.host.nbdkit import complaint_of, tried
from preswapd.host.nbdkit import environment as environment_of_nbdkit
from preswapd.server.config.reach import TlsKeys

# What nbdkit loads from the directory of certificates.
CERTIFICATES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
# How much nbdkit itself asks for: of the Unix socket's clients nothing, and those over TCP are
# looked at by server/arrivals.py.  Where it is required, nbdkit fails without keys.
WHERE_ASKED, REQUIRED = "on", "require"

# GnuTLS speaks TLS 1.0 and 1.1 too, unless it is told otherwise by a file.
POLICY = Path(__file__).with_name("gnutls.conf")
POLICY_VARIABLE = "GNUTLS_SYSTEM_PRIORITY_FILE"
SYSTEM_POLICY = Path("/etc/gnutls/config")

KEY_LINE = re.compile(r"[^:\s][^:]*:(?:[0-9a-fA-F]{2})+")
# 128 bits.
FEWEST_DIGITS = 32


def options(keys: TlsKeys, tls: str) -> list[str]:
    """For nbdkit.  Clients must show a certificate, or know a key."""
    where = "--tls-certificates" if keys.mode == X509 else "--tls-psk"
    return [f"--tls={tls}", f"{where}={keys.path}", "--tls-verify-peer"]


def environment() -> dict[str, str]:
    """Without the versions that count as broken; a host's own policy for all its programs stays."""
    if POLICY_VARIABLE in os.environ or SYSTEM_POLICY.exists():
        return {}
    return {POLICY_VARIABLE: str(POLICY)}


def check(keys: TlsKeys, nbdkit: str) -> None:
    """RefusedError where TLS clients could not be served."""
    if keys.mode == X509:
        for name in CERTIFICATES:
            read(keys.path / name)
    else:
        check_lines(keys.path)
    try_out(keys, nbdkit)


def doubts(keys: TlsKeys) -> Iterator[str]:
    """Of keys that can be used, what keeps all clients away nevertheless."""
    if keys.mode == X509:
        for name in CERTIFICATES[:2]:
            with suppress(OSError, ValueError):
                end = first_end((keys.path / name).read_text(errors="replace"))
                if end <= datetime.now(UTC):
                    yield f"{keys.path / name} ended on {end:%Y-%m-%d}: no guest gets in over TCP"


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = f": let user {os.geteuid()} read it, and nobody else"
        raise RefusedError(f"{path}: {error.strerror}{hint}") from None


def check_lines(path: Path) -> None:
    """GnuTLS finds a line that is wrong only when its client comes."""
    lines = read(path).decode(errors="replace").split("\n")
    found = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    found = [(number, line) for number, line in found if not line.startswith("#")]
    if not found:
        raise RefusedError(f"{path} has no key: write a line NAME:KEY for each client")
    for number, line in found:
        # No word of the line: it holds a key.
        if not KEY_LINE.fullmatch(line):
            raise RefusedError(
                f"{path}:{number}: a line is NAME:KEY, and KEY an even number of hexadecimal digits"
            )
        if len(line.rpartition(":")[2]) < FEWEST_DIGITS:
            raise RefusedError(
                f"{path}:{number}: the key is too short to keep anybody out: make one with"
                " openssl rand -hex 32"
            )


def try_out(keys: TlsKeys, nbdkit: str) -> None:
    """nbdkit loads keys before it does anything else; its word on them is the one that counts."""
    command = [nbdkit, *options(keys, REQUIRED), "python", "--dump-plugin"]
    done = tried(*command, env={**environment_of_nbdkit(), **environment()})
    if done.returncode:
        complaint = complaint_of(done).removeprefix("nbdkit: ")
        raise RefusedError(f"{keys.path} cannot be used: {complaint}")
