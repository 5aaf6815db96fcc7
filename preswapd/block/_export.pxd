# cython: language_level=3
# SPDX-License-Identifier: BSD-3-Clause
from libc.stdint cimport uint64_t


cdef extern from "export.h" nogil:
    enum:
        REQUEST_FUA
        REQUEST_FAST_ZERO
        REQUEST_MAY_TRIM
        SUPERSEDED
    ctypedef struct nbd_extent "struct nbd_extent":
        uint64_t offset, length
        bint hole


cdef enum:
    EXTENTS_AT_ONCE = 512


# The cdef methods return 0 (or how many) or a negative errno, for a caller who has to pass it on;
# a buffer that does not fit raises.
cdef class Connection:
    cdef readonly str name
    cdef readonly uint64_t size
    cdef readonly bint is_writable
    cdef readonly bint caches
    cdef int read(self, buf, uint64_t offset) except 1
    cdef int write(self, buf, uint64_t offset, unsigned flags) except 1
    cdef int sync(self) noexcept
    cdef int discard(self, uint64_t count, uint64_t offset, unsigned flags) noexcept
    cdef int clear(self, uint64_t count, uint64_t offset, unsigned flags) noexcept
    cdef int list_extents(self, uint64_t count, uint64_t offset, nbd_extent *to,
                          unsigned most) noexcept


cdef class Content(Connection):
    cdef object read_bytes
