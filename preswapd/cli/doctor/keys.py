# SPDX-License-Identifier: BSD-3-Clause
"""doctor's checks of the keys of TLS: when a certificate ends, and who can read or change them."""

import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote

from preswapd.api.kinds import PSK
from preswapd.api.messages import ServerFacts
from preswapd.cli.doctor.finding import FIX, NOTE, OK, Finding
from preswapd.cli.doctor.readable import first_closed, groups_of
from preswapd.cli.typed import as_root
from preswapd.host import plain_files, psk_file
from preswapd.host.certificates import ends_in

CA, CERTIFICATE, SECRET = "ca-cert.pem", "server-cert.pem", "server-key.pem"
# Of the CA's, those that do not count any more; it may be missing.
REVOKED = "ca-crl.pem"
# Enough for whoever has to ask others for a new one.
SOON = timedelta(days=30)

NOBODY = "from the server's next start on nobody is served over TCP"

Ends = Callable[[Sequence[datetime]], datetime]


def check_keys(name: str, facts: ServerFacts, now: datetime | None = None) -> Iterator[Finding]:
    """Of an instance with TLS; what keeps it from serving is said with its sockets."""
    if facts.tls is None or facts.tls_keys is None:
        return
    place = Path(facts.tls_keys)
    if facts.tls == PSK:
        yield from check_lines(name, place)
        yield from check_access(name, place, [place])
        yield from check_server(name, [place], facts)
    else:
        yield from check_end(name, place / CERTIFICATE, min, now or datetime.now(UTC))
        # While a new CA takes the place of an old one both are there, and either will do.
        yield from check_end(name, place / CA, max, now or datetime.now(UTC))
        files = [place / each for each in (CERTIFICATE, CA, SECRET, REVOKED)]
        yield from check_age(name, files, facts)
        yield from check_access(name, place / SECRET, files)
        yield from check_there(name, place / SECRET)
        if os.path.lexists(place / REVOKED):
            yield from check_there(name, place / REVOKED)
        yield from check_server(name, files, facts)
    if facts.tls_refused:
        yield Finding(
            NOTE,
            name,
            f"{facts.tls_refused} clients over TCP were refused since the server's start: the log"
            " says whose they were, and why",
        )


def check_end(name: str, path: Path, counts: Ends, now: datetime) -> Iterator[Finding]:
    """`counts` says which of the ends of those in the file."""
    try:
        end = counts(ends_in(path))
    except PermissionError:
        yield unreadable(name, path)
        return
    except (OSError, ValueError) as error:
        yield Finding(FIX, name, f"{path}: {words_of(error)}", "put the certificate back")
        return
    when, renew = f"{end:%Y-%m-%d %H:%M} UTC", "make a new one, and restart the server"
    if end <= now:
        yield Finding(FIX, name, f"{path} ended on {when}: no guest gets in over TCP", renew)
    elif end - now < SOON:
        yield Finding(NOTE, name, f"{path} ends on {when}", renew)
    else:
        yield Finding(OK, name, f"{path} counts until {when}")


def check_there(name: str, path: Path) -> Iterator[Finding]:
    try:
        plain_files.read(path)
    except PermissionError:
        yield unreadable(name, path)
    except OSError as error:
        text = f"{path}: {words_of(error)}: {NOBODY}"
        yield Finding(FIX, name, text, "put it right before the server is started again")


def check_server(name: str, paths: list[Path], facts: ServerFacts) -> Iterator[Finding]:
    """Its user reads keys with what rights it has by then, which may be other ones than before."""
    try:
        user = pwd.getpwuid(Path(facts.runtime_dir).stat().st_uid)
    except (OSError, KeyError):
        return
    if user.pw_uid == 0:
        return
    groups = groups_of(user)
    found = (first_closed(Path("/"), path.resolve(), user.pw_uid, groups) for path in paths)
    for closed_one in dict.fromkeys(each for each in found if each is not None):
        group = grp.getgrgid(user.pw_gid).gr_name
        right = "g+rx" if closed_one.is_dir() else "g+r"
        yield Finding(
            FIX,
            name,
            f"user {user.pw_name}, who serves, cannot read {closed_one}: {NOBODY}",
            "let it",
            as_root(
                f"chgrp {group} {quote(str(closed_one))} && chmod {right} {quote(str(closed_one))}"
            ),
        )


def check_lines(name: str, path: Path) -> Iterator[Finding]:
    """They are read for each client, and so may have become wrong since the start."""
    try:
        text = plain_files.read(path).decode(errors="replace")
    except PermissionError:
        yield unreadable(name, path)
        return
    except OSError as error:
        text = f"{path}: {words_of(error)}: no guest gets in over TCP"
        yield Finding(FIX, name, text, "put the file back")
        return
    fault = psk_file.fault_in(text)
    if fault:
        yield Finding(FIX, name, f"{path}{fault}", "put the line right: it counts at once")
    for each in psk_file.names_twice(text):
        said = f"{path} has the name {each} twice: the first line counts alone"
        yield Finding(NOTE, name, said, "take the other one out, or give it another name")


def unreadable(name: str, path: Path) -> Finding:
    return Finding(NOTE, name, f"{path} cannot be read here", "as root, run it again")


def words_of(error: OSError | ValueError) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def check_age(name: str, paths: list[Path], facts: ServerFacts) -> Iterator[Finding]:
    """nbdkit has them from its start on."""
    newer = [path for path in paths if changed_at(path) > facts.start_time]
    if newer:
        yield Finding(
            NOTE,
            name,
            f"{newer[0]} was changed after the server's start, which may still use the one before",
            "restart the server, which loses no page",
        )


def changed_at(path: Path) -> float:
    """Also of one that was made earlier, and put there later."""
    try:
        return path.stat().st_ctime
    except OSError:
        return 0.0


def check_access(name: str, secret: Path, all_files: list[Path]) -> Iterator[Finding]:
    if others_may(stat.S_IROTH, secret):
        text = f"every user of this host can read {secret}, and so every guest's pages"
        yield closed(name, text, f"chmod o= {quote(str(secret))}")
    for path in (*all_files, secret.parent):
        if others_may(stat.S_IWOTH, path):
            text = f"every user of this host can change {path}, and so let anybody in over TCP"
            yield closed(name, text, f"chmod o-w {quote(str(path))}")


def closed(name: str, text: str, command: str) -> Finding:
    return Finding(FIX, name, text, "close it, and make new keys", as_root(command))


def others_may(mode: int, path: Path) -> bool:
    """A directory that is closed keeps them from all below it."""
    try:
        real = path.resolve(strict=True)
        is_reached = all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
        return is_reached and bool(real.stat().st_mode & mode)
    except OSError:
        return False
