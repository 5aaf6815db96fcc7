# SPDX-License-Identifier: BSD-3-Clause
"""From a path to an image that may be served, or why not."""

import errno
import fcntl
import mmap
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from preswapd.errors import RefusedError
from preswapd.host.disk_locks import lock_alone, lock_to_read
from preswapd.precache.formats import format_of, is_arena
from preswapd.units import PAGE_SIZE, exact_size

# The least that a disk can be asked for.
SECTOR = 512
NO_IMAGE = "{} is neither a file nor a block device: name the raw image itself"


@dataclass(frozen=True)
class Opened:
    """`is_direct`: past the page cache, where the pages would lie a second time."""

    descriptor: int
    size: int
    is_direct: bool
    is_writable: bool = False

    def close(self) -> None:
        os.close(self.descriptor)


def which(file: Path | int) -> tuple[int, int]:
    """Which file or block device it is, whatever its names; nothing's where there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0)
    return (found.st_rdev, 0) if stat.S_ISBLK(found.st_mode) else (found.st_dev, found.st_ino)


def beneath(file: Path | int) -> tuple[int, int]:
    """As which(), but of a loop device, or a part of one, the file that it shows."""
    try:
        found = os.stat(file)
    except OSError:
        return (0, 0)
    if stat.S_ISBLK(found.st_mode):
        major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        here = Path(f"/sys/dev/block/{major}:{minor}").resolve()
        for place in (here, here.parent):
            try:
                backing = (place / "loop" / "backing_file").read_text().removesuffix("\n")
            except OSError:
                continue
            below = beneath(Path(backing))
            return which(file) if below == (0, 0) else below
    return which(file)


def open_image(path: Path, writable: bool = False) -> Opened:
    """To read, or to write to it alone.  RefusedError with what is wrong and what helps."""
    descriptor = opened(path, writable)
    try:
        size = check(path, descriptor)
        lock(path, descriptor, writable)
        is_direct = goes_past_the_page_cache(descriptor, size, writable)
    except OSError as error:
        os.close(descriptor)
        raise RefusedError(f"{path} cannot be used: {error.strerror}") from None
    except BaseException:
        os.close(descriptor)
        raise
    return Opened(descriptor, size, is_direct, writable)


def opened(path: Path, writable: bool) -> int:
    # A named pipe without a writer would be waited for.
    flags = os.O_CLOEXEC | os.O_NONBLOCK | (os.O_RDWR if writable else os.O_RDONLY)
    try:
        if writable and path.is_block_device():
            flags |= os.O_EXCL  # nothing is mounted from it, or made of it
        return os.open(path, flags)
    except FileNotFoundError:
        raise RefusedError(f"{path} is missing: {give_another(path)}") from None
    except OSError as error:
        raise RefusedError(why_not_opened(path, writable, error)) from None


def why_not_opened(path: Path, writable: bool, error: OSError) -> str:
    if error.errno == errno.EISDIR:
        return NO_IMAGE.format(path)
    if error.errno == errno.EBUSY:
        return (
            f"{path} is in use by this host, which must let go of it first: lsblk"
            f" {quote(str(path))} says what is mounted from it or made of it"
        )
    what = f"{path} cannot be {'written to' if writable else 'read'}: {error.strerror}"
    if error.errno == errno.EROFS:
        return f"{what}: in a unit of systemd's ReadWritePaths={path} lets it"
    if isinstance(error, PermissionError):
        shown = f"namei -l {quote(str(path))}"
        return f"{what}: {shown} shows what keeps user {user_name()} out"
    return what


def give_another(path: Path) -> str:
    """How to come by an image."""
    return f"a raw one is made by qemu-img convert -O raw FILE {quote(str(path))}"


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def check(path: Path, descriptor: int) -> int:
    """Its size."""
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise RefusedError(NO_IMAGE.format(path))
    try:
        found, arena = format_of(descriptor), is_arena(descriptor)
        size = os.lseek(descriptor, 0, os.SEEK_END)
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from None
    if arena:
        raise RefusedError(f"{path} holds the pages of an instance's guests: {give_another(path)}")
    if found:
        raise RefusedError(
            f"{path} is a {found} image, and only raw ones are served: qemu-img convert -O raw"
            f" {quote(str(path))} {quote(f'{path}.raw')}, and give it that file"
        )
    if size == 0:
        raise RefusedError(f"{path} is empty: {give_another(path)}")
    if size % SECTOR:
        longer = size + -size % SECTOR
        raise RefusedError(
            f"{path} is {size} bytes long, no multiple of {SECTOR} as disks are: truncate -s"
            f" {longer} {quote(str(path))} makes it {exact_size(longer)} long"
        )
    return size


def lock(path: Path, descriptor: int, writable: bool) -> None:
    try:
        (lock_alone if writable else lock_to_read)(descriptor, path)
    except RefusedError:
        who = "another program, and a disk that is written to has one user"
        if not writable:
            who = "a program that may write to it"
        raise RefusedError(
            f"{path} is in use by {who}: fuser -v {quote(str(path))} tells which; end that one, or"
            " serve a copy"
        ) from None


def goes_past_the_page_cache(descriptor: int, size: int, writable: bool) -> bool:
    """From now on, where its file system can do that."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
    except OSError:
        return False
    tail = size % PAGE_SIZE if writable else 0
    # What is read may end behind the file, and what is written must not.
    if reads(descriptor, 0, PAGE_SIZE) and (not tail or reads(descriptor, size - tail, tail)):
        return True
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    return False


def reads(descriptor: int, offset: int, count: int) -> bool:
    """Not where the disk's own sectors are longer than that."""
    with (
        mmap.mmap(-1, PAGE_SIZE) as page,
        memoryview(page) as view,
        view[:count] as piece,
    ):
        try:
            return os.preadv(descriptor, [piece], offset) > 0
        except OSError:
            return False
