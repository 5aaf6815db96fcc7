# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of the keys of TLS: when a certificate ends, and who can read what is secret."""

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote

from preswapd.api.kinds import PSK
from preswapd.api.messages import ServerFacts
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.typed import as_root
from preswapd.host.certificates import first_end

CERTIFICATES, SECRET = ("server-cert.pem", "ca-cert.pem"), "server-key.pem"
# Enough for whoever has to ask others for a new one.
SOON = timedelta(days=30)


def check_keys(name: str, facts: ServerFacts, now: datetime | None = None) -> Iterator[Finding]:
    """Of an instance with TLS; what keeps it from serving is said with its sockets."""
    if facts.tls is None or facts.tls_keys is None:
        return
    place = Path(facts.tls_keys)
    if facts.tls != PSK:
        for each in CERTIFICATES:
            yield from check_end(name, place / each, now or datetime.now(UTC))
        yield from check_age(name, [place / each for each in (*CERTIFICATES, SECRET)], facts)
    yield from check_secret(name, place if facts.tls == PSK else place / SECRET)
    if facts.tls_refused:
        yield Finding(
            NOTE,
            name,
            f"{facts.tls_refused} clients over TCP were refused since the server's start: the log"
            " says whose they were, and why",
        )


def check_end(name: str, path: Path, now: datetime) -> Iterator[Finding]:
    try:
        end = first_end(path.read_text(errors="replace"))
    except PermissionError:
        yield Finding(NOTE, name, f"{path} cannot be read here", "as root, run it again")
        return
    except (OSError, ValueError) as error:
        yield Finding(FIX, name, f"{path}: {error}", "put the certificate back")
        return
    when, renew = f"{end:%Y-%m-%d %H:%M} UTC", "make a new one, and restart the server"
    if end <= now:
        yield Finding(FIX, name, f"{path} ended on {when}: no guest gets in over TCP", renew)
    elif end - now < SOON:
        yield Finding(NOTE, name, f"{path} ends on {when}", renew)
    else:
        yield Finding(OK, name, f"{path} counts until {when}")


def check_age(name: str, paths: list[Path], facts: ServerFacts) -> Iterator[Finding]:
    """nbdkit has them from its start on."""
    newer = [path for path in paths if changed_at(path) > facts.start_time]
    if newer:
        yield Finding(
            NOTE,
            name,
            f"{newer[0]} was changed after the server's start, which still uses the one before",
            "restart the server, which loses no page",
        )


def changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def check_secret(name: str, path: Path) -> Iterator[Finding]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IROTH:
        text = f"every user of this host can read {path}, and so every guest's pages"
        mend = "close it, and make new keys"
        yield Finding(FIX, name, text, mend, as_root(f"chmod o= {quote(str(path))}"))
