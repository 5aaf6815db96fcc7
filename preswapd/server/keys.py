# SPDX-License-Identifier: BSD-3-Clause
"""The keys of TLS: whether nbdkit can use them, found out before this process becomes nbdkit, which
would end where it cannot; and how it is told to."""

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from preswapd.api.kinds import X509
from preswapd.errors import RefusedError
from preswapd.host import plain_files, psk_file
from preswapd.host.certificates import ends_in
from preswapd.host.nbdkit import complaint_of, tried
from preswapd.host.nbdkit import environment as environment_of_nbdkit
from preswapd.server.config.reach import TlsKeys

# What nbdkit loads from the directory of certificates.
CERTIFICATES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
# Which of them do not count any more; it may be missing.
REVOKED = "ca-crl.pem"
# How much nbdkit itself asks for: of the Unix socket's clients nothing, and those over TCP are
# looked at by server/arrivals.py.  Where it is required, nbdkit fails without keys.
WHERE_ASKED, REQUIRED = "on", "require"

# GnuTLS speaks TLS 1.0 and 1.1 too, unless it is told otherwise by a file.
POLICY = Path(__file__).with_name("gnutls.conf")
POLICY_VARIABLE = "GNUTLS_SYSTEM_PRIORITY_FILE"
SYSTEM_POLICY = Path("/etc/gnutls/config")


def options(keys: TlsKeys, tls: str) -> list[str]:
    """For nbdkit.  Clients must show a certificate, or know a key."""
    where = "--tls-certificates" if keys.mode == X509 else "--tls-psk"
    return [f"--tls={tls}", f"{where}={keys.path}", "--tls-verify-peer"]


def environment() -> dict[str, str]:
    """Without what counts as broken.  A host's own policy for all its programs stays if it asks for
    anything that ours does not, as an administrator's may; Ubuntu's does not."""
    if POLICY_VARIABLE in os.environ or not has_no_more_than_ours(SYSTEM_POLICY):
        return {}
    return {POLICY_VARIABLE: str(POLICY)}


def has_no_more_than_ours(policy: Path) -> bool:
    try:
        return settings_of(policy.read_text()) <= settings_of(POLICY.read_text())
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def settings_of(policy: str) -> set[tuple[str, str]]:
    """Section and setting of each line that is one, without blanks."""
    section, found = "", set()
    for line in policy.splitlines():
        text = line.partition("#")[0].replace(" ", "").strip()
        if text.startswith("["):
            section = text
        elif text:
            found.add((section, text))
    return found


def check(keys: TlsKeys, nbdkit: str) -> None:
    """RefusedError where TLS clients could not be served."""
    if keys.mode == X509:
        for name in CERTIFICATES:
            read(keys.path / name)
        # One that it cannot read nbdkit takes for none: those that were revoked would come in.
        if os.path.lexists(keys.path / REVOKED):
            read(keys.path / REVOKED)
    else:
        check_lines(keys.path)
    try_out(keys, nbdkit)


def doubts(keys: TlsKeys) -> Iterator[str]:
    """Of keys that can be used, what keeps clients away nevertheless."""
    if keys.mode == X509:
        ca, server, _ = (keys.path / name for name in CERTIFICATES)
        with suppress(OSError, ValueError):
            yield from of_end(server, ends_in(server)[0])
        # While a new CA takes the place of an old one both are there, and either will do.
        with suppress(OSError, ValueError):
            yield from of_end(ca, ends_in(ca)[-1])
    else:
        for name in psk_file.names_twice(text_of(keys.path)):
            yield f"{keys.path} has the name {name} twice: the first line counts alone"


def of_end(path: Path, end: datetime) -> Iterator[str]:
    if end <= datetime.now(UTC):
        yield f"{path} ended on {end:%Y-%m-%d}: no guest gets in over TCP"


def read(path: Path) -> bytes:
    try:
        return plain_files.read(path)
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = f": let user {os.geteuid()} read it, and nobody else"
        raise RefusedError(f"{path}: {error.strerror}{hint}") from None


def check_lines(path: Path) -> None:
    fault = psk_file.fault_in(text_of(path))
    if fault:
        raise RefusedError(f"{path}{fault}")


def text_of(path: Path) -> str:
    return read(path).decode(errors="replace")


def try_out(keys: TlsKeys, nbdkit: str) -> None:
    """nbdkit loads keys before it does anything else; its word on them is the one that counts."""
    command = [nbdkit, *options(keys, REQUIRED), "python", "--dump-plugin"]
    done = tried(*command, env={**environment_of_nbdkit(), **environment()})
    if done.returncode:
        complaint = complaint_of(done).removeprefix("nbdkit: ")
        raise RefusedError(f"{keys.path} cannot be used: {complaint}")
