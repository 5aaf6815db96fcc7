# cython: language_level=3, binding=False
# SPDX-License-Identifier: BSD-3-Clause
"""nbdkit's callbacks of single requests: put into the plugin's namespace as they are.

One call is one NBD request.
"""

import errno
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

from preswapd.block._export cimport (
    EXTENTS_AT_ONCE,
    REQUEST_FAST_ZERO,
    REQUEST_FUA,
    REQUEST_MAY_TRIM,
    SUPERSEDED,
    Connection,
    nbd_extent,
)

from preswapd.server.buffers import LARGEST_REQUEST

cdef enum:
    # nbdkit's request flags and extent types (nbdkit-plugin(3)).
    NBDKIT_FLAG_MAY_TRIM = 1
    NBDKIT_FLAG_FUA = 2
    NBDKIT_FLAG_FAST_ZERO = 8
    NBDKIT_EXTENT_HOLE_ZERO = 3

cdef extern from "pin.h":
    int pin_init()
    void pin_thread()

cdef extern from "buffers.h":
    int buffer_init()
    void buffer_note(uint64_t)
    void buffer_empty(void *, uint64_t)
    uint64_t buffers_held()

if pin_init() or buffer_init():
    raise MemoryError("no thread-specific key is left")

# nbdkit.set_error: an exception is EIO to the client unless this was called before.
set_error = None
# Told of each client whose request was longer than it may be.
on_too_long = None
# Told of each client that is to be dropped without an answer: another one has come in its place.
on_superseded = None

cdef uint64_t largest = LARGEST_REQUEST


cdef int check(int err) except -1:
    if err < 0:
        if set_error is not None:
            set_error(-err)
        raise OSError(-err, os.strerror(-err))
    return 0


cdef int check_change(Connection h, int err) except -1:
    if err == -SUPERSEDED:
        if on_superseded is not None:
            on_superseded(h)
        err = -errno.ESHUTDOWN
    return check(err)


cdef unsigned request_flags(int flags) noexcept:
    return ((REQUEST_MAY_TRIM if flags & NBDKIT_FLAG_MAY_TRIM else 0) |
            (REQUEST_FUA if flags & NBDKIT_FLAG_FUA else 0) |
            (REQUEST_FAST_ZERO if flags & NBDKIT_FLAG_FAST_ZERO else 0))


def held():
    """Bytes of the buffers of all worker threads, as far as they are within the largest request."""
    return buffers_held()


cdef int check_length(Connection h, buf) except -1:
    """nbdkit takes up to 64 MiB, and its client was told less."""
    cdef uint64_t length = len(buf)
    if length > largest:
        return refuse(h, buf)  # which gives its memory back
    buffer_note(length)
    return 0


cdef int refuse(Connection h, buf) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    buffer_empty(view.buf, <uint64_t>view.len)
    PyBuffer_Release(&view)
    if on_too_long is not None:
        on_too_long(h)
    return check(-errno.EINVAL)


def pread(Connection h not None, buf, uint64_t offset, int flags):
    pin_thread()
    check_length(h, buf)
    check(h.read(buf, offset))


def pwrite(Connection h not None, buf, uint64_t offset, int flags):
    pin_thread()
    check_length(h, buf)
    check_change(h, h.write(buf, offset, request_flags(flags)))


def flush(Connection h not None, int flags):
    pin_thread()
    check(h.sync())


def trim(Connection h not None, uint64_t count, uint64_t offset, int flags):
    pin_thread()
    check_change(h, h.discard(count, offset, request_flags(flags)))


def zero(Connection h not None, uint64_t count, uint64_t offset, int flags):
    pin_thread()
    check_change(h, h.clear(count, offset, request_flags(flags)))


def extents(Connection h not None, uint64_t count, uint64_t offset, int flags):
    pin_thread()
    cdef nbd_extent found[EXTENTS_AT_ONCE]
    cdef int n = h.list_extents(count, offset, found, EXTENTS_AT_ONCE)
    check(n)
    return [(found[i].offset, found[i].length, NBDKIT_EXTENT_HOLE_ZERO if found[i].hole else 0)
            for i in range(n)]
