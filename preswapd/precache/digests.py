# SPDX-License-Identifier: BSD-3-Clause
"""What the file of an image holds: its SHA-256, as which hosts share its pages, and each page's.

A file is read for them once, slowly, in the background, and they are kept beside what the file was
before and after; so a restart reads nothing, and a change of one byte takes them away.  By those of
the pages a page that another host has set is checked, whatever is wrong with that host.
"""

import errno
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

from preswapd.block.digest import blake2b
from preswapd.log import INFO, WARNING, Log
from preswapd.precache.image._image import Image
from preswapd.precache.image.identity import Identity
from preswapd.remote._remote import DIGEST_BYTES, SUM_BYTES, Digest, page_sums
from preswapd.units import PAGE_SIZE

# Bytes a second that are read for it, so that guests hardly notice.
RATE = 100 << 20
PIECE = 1 << 20
# A file that could not be read is read again after so long.
PAUSE_SECONDS = 60.0

# A magic number, the file's path as a digest, what the file was, and its SHA-256; then the pages'.
HEAD = struct.Struct("<8s16s3Q4q32s")
MAGIC = b"pssums1\n"


@dataclass(frozen=True)
class Contents:
    """The descriptor is whoever's who has asked."""

    digest: bytes
    sums: int  # a descriptor of a file
    sums_at: int = HEAD.size


@dataclass(frozen=True)
class Job:
    path: Path
    image: Image
    identity: Identity


class Digests:
    """`find()` is for one thread, `work()` for another one, and for that alone."""

    def __init__(
        self,
        kept: Callable[[str], Path],
        log: Log,
        rate: float = RATE,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """kept: where those of the image of that name are kept."""
        self.kept = kept
        self.log = log
        self.rate = rate
        self.pause = pause
        self.clock = clock
        self.lock = threading.Lock()
        self.begun: dict[str, tuple[Identity, float]] = {}  # and when to look again
        self.jobs: SimpleQueue[Job] = SimpleQueue()

    def find(self, path: Path, image: Image, identity: Identity) -> Contents | None:
        """None: they are not known yet, and are computed."""
        with self.lock:
            begun, look_at = self.begun.get(image.name, (None, 0.0))
            if begun == identity and self.clock() < look_at:
                return None
            self.begun[image.name] = (identity, float("inf"))
        job = Job(path, image, identity)
        found = opened(self.kept(image.name), job)
        if found is None:
            self.jobs.put(job)
        else:
            self.end(job, 0.0)
        return found

    def end(self, job: Job, pause: float) -> None:
        with self.lock:
            if self.begun[job.image.name][0] == job.identity:
                self.begun[job.image.name] = (job.identity, self.clock() + pause)

    def work(self) -> None:
        """Waits for one that is wanted, and computes it."""
        job = self.jobs.get()
        kept = self.kept(job.image.name)
        fresh = kept.with_name(f"{kept.name}.new")
        is_done = False
        try:
            self.log(INFO, f"{job.image.name}: {job.path} is read for its digest")
            with open(fresh, "wb", opener=for_owner_alone) as file:
                is_done = self.compute(job, file)
            if is_done:
                fresh.replace(kept)
        except OSError as error:
            is_done = False
            self.log(WARNING, f"{job.image.name}: no digest of {job.path}: {error.strerror}")
        finally:
            if not is_done:
                with suppress(OSError):
                    fresh.unlink()
            self.end(job, 0.0 if is_done else PAUSE_SECONDS)

    def compute(self, job: Job, file: BinaryIO) -> bool:
        """False: the image's file is another one, or was cut off."""
        image, digest = job.image, Digest()
        file.seek(HEAD.size)
        # The image may be closed meanwhile.
        descriptor = os.dup(image.descriptor)
        try:
            with mmap.mmap(-1, PIECE) as piece, memoryview(piece) as view:
                for at in range(0, image.size, PIECE):
                    begun = self.clock()
                    if image.look() != job.identity:
                        return False
                    count = min(PIECE, image.size - at)
                    if read_piece(descriptor, view, at, count) < count:
                        return False
                    if not image.is_direct:
                        os.posix_fadvise(descriptor, at, PIECE, os.POSIX_FADV_DONTNEED)
                    file.write(summed(view, count, digest))
                    self.pause(max(0.0, count / self.rate - (self.clock() - begun)))
            sync(descriptor)
        finally:
            os.close(descriptor)
        if image.look() != job.identity:
            return False
        file.seek(0)
        file.write(head_of(job) + digest.finish())
        file.flush()
        os.fsync(file.fileno())
        return True


def for_owner_alone(path: str, flags: int) -> int:
    """What tells known pages from others is for nobody else."""
    return os.open(path, flags, 0o600)


def sync(descriptor: int) -> None:
    """Else a host that crashes may keep the digest, and when the file was changed, and not the
    change: it would serve pages of both."""
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        # A file system that nobody can write to may have no word for it.
        if error.errno not in (errno.EINVAL, errno.EROFS):
            raise


def read_piece(descriptor: int, view: memoryview, at: int, count: int) -> int:
    """So many bytes at least, less where the file ends; whole pieces, as O_DIRECT wants it."""
    done = 0
    while done < count:
        with view[done:] as rest:
            some = os.preadv(descriptor, [rest], at + done)
        if not some:
            break
        done += some
    return done


def summed(view: memoryview, count: int, digest: Digest) -> bytes:
    """Of each page; the last one is padded with zeros, as it is served."""
    whole = count + -count % PAGE_SIZE
    view[count:whole] = bytes(whole - count)
    with view[:count] as filled, view[:whole] as pages:
        digest.update(filled)
        return page_sums(pages)


def head_of(job: Job) -> bytes:
    """All of it but the digest.  A file system may have another number after a reboot."""
    path = blake2b(os.fsencode(job.path), digest_size=16).digest()
    return HEAD.pack(MAGIC, path, *job.identity._replace(device=0), b"")[:-DIGEST_BYTES]


def opened(kept: Path, job: Job) -> Contents | None:
    """None: they are not there, or of a file as it is not any more."""
    pages = -(-job.image.size // PAGE_SIZE)
    with suppress(OSError):
        descriptor = os.open(kept, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.pread(descriptor, HEAD.size, 0)
            length = os.fstat(descriptor).st_size
            if length == HEAD.size + pages * SUM_BYTES and head.startswith(head_of(job)):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
                return Contents(head[-DIGEST_BYTES:], os.dup(descriptor))
        finally:
            os.close(descriptor)
    return None
