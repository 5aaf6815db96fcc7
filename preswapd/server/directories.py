# SPDX-License-Identifier: BSD-3-Clause
"""The instance's directories: ours alone, where they must be, and large enough."""

import errno
import os
import stat
from pathlib import Path

from preswapd.errors import RefusedError
from preswapd.host.filesystems import existing_parent, is_tmpfs, total_bytes
from preswapd.paths import InstancePaths
from preswapd.units import format_size

# Guests' pages lie in shared memory under names that anyone could have taken first.
NOBODY_ELSE = 0o077
# QEMU's group may enter the runtime directory, and a state directory was perhaps made by hand; the
# files in them are protected themselves.
NOBODY_ELSE_WRITES = 0o022
# Here logind makes a directory for each user who logs in.
SESSIONS = Path("/run/user")
# What lies above them is for the instances of all users, as systemd's tmpfiles make it.
ABOVE = 0o022


def prepare(paths: InstancePaths, pool_size: int) -> None:
    """Makes the directories that are missing; refuses those that will not do."""
    check_session(paths.runtime_dir)
    check_shared_memory(paths.shm_dir, pool_size)
    make_private(paths.shm_dir, NOBODY_ELSE)
    make_private(paths.runtime_dir, NOBODY_ELSE_WRITES)
    make_private(paths.state_dir, NOBODY_ELSE_WRITES)


def check_session(directory: Path) -> None:
    """The directory of a user's sockets comes with a login; su and cron log nobody in."""
    session = SESSIONS / str(os.geteuid())
    missing = session in directory.parents and not session.exists()
    if missing and not os.access(SESSIONS, os.W_OK):
        raise RefusedError(
            f"{session} is not there, as user {session.name} has no login session: give"
            " --runtime-dir DIR here and to preswapctl"
        )


def check_shared_memory(directory: Path, pool_size: int) -> None:
    """By the size of the file system and not by what is free: a restart finds it full of ours."""
    place = existing_parent(directory)
    if not is_tmpfs(place):
        raise RefusedError(
            f"{directory} is not on a tmpfs: pages there would not be in memory (use a directory"
            " under /dev/shm)"
        )
    total = total_bytes(place)
    if 0 < total < pool_size:
        raise RefusedError(
            f"the pool of {format_size(pool_size)} does not fit into {place}, which holds"
            f" {format_size(total)}: remount it with a larger size= or lower pool-size"
        )


def make(directory: Path) -> None:
    before = os.umask(ABOVE)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    finally:
        os.umask(before)


def way_out(directory: Path, error: OSError) -> str:
    """A service's sandbox shows what is elsewhere read-only."""
    if error.errno != errno.EROFS:
        return ""
    return (
        f": under systemd, `systemctl edit` its unit and its preswapd-sync@, and add"
        f" ReadWritePaths={directory} to [Service] of both; it must be there before the server"
    )


def make_private(directory: Path, forbidden: int) -> None:
    """The directory, made if it is missing, belongs to us and lets others do nothing forbidden."""
    try:
        make(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (FileExistsError, NotADirectoryError):
        raise RefusedError(f"{directory} is not a directory, or is a symbolic link") from None
    except OSError as error:
        raise RefusedError(f"{directory}: {error.strerror}{way_out(directory, error)}") from None
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if status.st_uid != os.geteuid():
        raise RefusedError(f"{directory} belongs to user {status.st_uid}, not to this one")
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden and mode & stat.S_ISVTX:
        # As /dev/shm itself is: made private, it would be closed to the other programs that use it.
        raise RefusedError(
            f"{directory} is shared by all users (mode {mode:04o}): give a directory inside it"
        )
    if mode & forbidden:
        raise RefusedError(
            f"{directory} is open to others (mode {mode:04o}): chmod {mode & ~forbidden:04o} it"
        )
