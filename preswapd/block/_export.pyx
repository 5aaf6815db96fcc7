# cython: language_level=3, binding=False
# SPDX-License-Identifier: BSD-3-Clause
"""One client of an export, whatever is exported: what nbdkit's callbacks ask of it."""

import os

from libc.errno cimport ECONNABORTED, EINVAL, EIO, EOPNOTSUPP, EROFS

FLAG_FUA = REQUEST_FUA
FLAG_FAST_ZERO = REQUEST_FAST_ZERO
FLAG_MAY_TRIM = REQUEST_MAY_TRIM


cdef int check(int err) except -1:
    if err == -SUPERSEDED:
        err = -ECONNABORTED
    if err < 0:
        raise OSError(-err, os.strerror(-err))
    return 0


cdef unsigned public(unsigned flags) except? 0:
    if flags & ~<unsigned>(REQUEST_FUA | REQUEST_FAST_ZERO | REQUEST_MAY_TRIM):
        raise ValueError(f"unknown flags {flags}")
    return flags


cdef class Connection:
    """nbdkit's handle.  What an export cannot do is an error here."""

    def close(self):
        raise NotImplementedError

    cdef int read(self, buf, uint64_t offset) except 1:
        return -EOPNOTSUPP

    cdef int write(self, buf, uint64_t offset, unsigned flags) except 1:
        return -EROFS

    cdef int sync(self) noexcept:
        return 0

    cdef int discard(self, uint64_t count, uint64_t offset, unsigned flags) noexcept:
        return -EROFS

    cdef int clear(self, uint64_t count, uint64_t offset, unsigned flags) noexcept:
        return -EROFS

    cdef int list_extents(self, uint64_t count, uint64_t offset, nbd_extent *to,
                          unsigned most) noexcept:
        return -EOPNOTSUPP

    def pread(self, buf, uint64_t offset):
        check(self.read(buf, offset))

    def pwrite(self, buf, uint64_t offset, unsigned flags=0):
        check(self.write(buf, offset, public(flags)))

    def flush(self):
        check(self.sync())

    def trim(self, uint64_t count, uint64_t offset, unsigned flags=0):
        check(self.discard(count, offset, public(flags)))

    def zero(self, uint64_t count, uint64_t offset, unsigned flags=0):
        check(self.clear(count, offset, public(flags)))

    def extents(self, uint64_t count, uint64_t offset):
        cdef nbd_extent found[EXTENTS_AT_ONCE]
        cdef int n = self.list_extents(count, offset, found, EXTENTS_AT_ONCE)
        check(n)
        return [(found[i].offset, found[i].length, bool(found[i].hole)) for i in range(n)]


cdef class Content(Connection):
    """What a function says: read(offset, count) returns so many bytes, or raises OSError."""

    def __init__(self, str name not None, uint64_t size, read not None):
        self.name, self.size, self.is_writable = name, size, False
        self.read_bytes = read

    def close(self):
        pass

    cdef int read(self, buf, uint64_t offset) except 1:
        cdef uint64_t count = len(buf)
        if offset > self.size or count > self.size - offset:
            return -EINVAL
        try:
            memoryview(buf).cast("B")[:] = self.read_bytes(offset, count)
        except OSError as error:
            return -error.errno if error.errno else -EIO
        return 0

    cdef int list_extents(self, uint64_t count, uint64_t offset, nbd_extent *to,
                          unsigned most) noexcept:
        to[0].offset, to[0].length, to[0].hole = offset, count, False
        return 1
