# cython: language_level=3, binding=False
# SPDX-License-Identifier: BSD-3-Clause
"""Images as Python sees them: who owns them, and when the interpreter lock is held.

What they do is in C, see image.h, reads.h and client.h.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.errno cimport EROFS

from preswapd.block.latency import summary
from preswapd.precache.image.identity import Identity
from preswapd.tmem._tmem cimport compress_number


cdef extern from "buffer.h" nogil:
    uint64_t transfer_buffers_held()


def transfer_buffers():
    return transfer_buffers_held()


cdef int check(int err) except -1:
    if err < 0:
        raise OSError(-err, os.strerror(-err))
    return 0


cdef class Image:
    """One image that is open.  Its owner closes it; the descriptor is its own from then on."""

    def __cinit__(self):
        image_init(&self.i)

    def __init__(self, Host host not None, *, str name not None, int fd, uint64_t size,
                 bint is_direct, bint is_writable, str compress not None,
                 uint64_t admission_window=0):
        if self.host is not None:
            raise ValueError("an image is opened once")
        self.i.tmem, self.i.host = host.ops(), host.pointer()
        self.i.compress = <tmem_compress>compress_number(compress)
        self.host, self.name, self.size, self.compress = host, name, size, compress
        check(file_attach(&self.i.file, fd, size, is_direct, is_writable))
        if admission_window:
            check(admission_begin(&self.i.admission, file_pages(&self.i.file), admission_window))
        self.is_open = True

    def __dealloc__(self):
        # Whoever was in flight held a reference.
        self.release()
        image_destroy(&self.i)

    cdef int release(self) except -1:
        if self.is_open:
            self.is_open = False
            os.close(self.i.file.fd)
        return 0

    def close(self):
        """Nothing begins any more, and what is in flight ends."""
        with nogil:
            flights_close(&self.i.flights)
        self.release()

    def connect(self):
        return Connection(self)

    @property
    def connections(self):
        return self.i.flights.connections

    @property
    def is_file(self):
        return bool(self.i.file.is_file)

    @property
    def is_direct(self):
        return bool(self.i.file.is_direct)

    @property
    def is_writable(self):
        return bool(self.i.file.is_writable)

    @property
    def descriptor(self):
        return self.i.file.fd

    @property
    def pool(self):
        return None if self.i.pool == NO_POOL else self.i.pool

    @property
    def is_cached(self):
        """Whether what is cached is believed; asks the file."""
        cdef bint cached
        with nogil:
            cached = image_is_cached(&self.i)
        return cached

    @property
    def disk_errors(self):
        return self.i.count.disk_errors

    @property
    def last_disk_error(self):
        return self.i.last_error

    def look(self):
        cdef identity found
        cdef int err
        with nogil:
            err = file_look(&self.i.file, &found)
        check(err)
        return Identity(found.device, found.inode, found.size, found.mtime_s, found.mtime_ns,
                        found.ctime_s, found.ctime_ns)

    def believe(self, pool, it not None):
        cdef uint32_t number = NO_POOL if pool is None else pool
        cdef identity known = identity(it.device, it.inode, it.size, it.mtime_s, it.mtime_ns,
                                       it.ctime_s, it.ctime_ns)
        image_believe(&self.i, number, &known)
        self.shared = None

    @property
    def is_shared(self):
        return self.i.share != NULL

    def share(self, share not None):
        if self.i.share != NULL:
            raise ValueError("it is shared")
        cdef object capsule = share.handle()
        cdef share_handle *handle = <share_handle *>PyCapsule_GetPointer(capsule, SHARE_CAPSULE)
        # Until it is parked: who is in flight may be at it.
        self.shared = share
        image_share(&self.i, handle.ops, handle.share)

    def park(self, unsigned milliseconds):
        cdef bint ended
        with nogil:
            ended = flights_park(&self.i.flights, milliseconds)
        return ended

    def resume(self):
        flights_resume(&self.i.flights)

    def stats(self):
        counters = dict(self.i.count)
        for name, count in dict(self.i.remote).items():
            counters[f"remote_{name}"] = count
        counters["latency"] = {
            "read": summary(self.i.read_latency.counts, self.i.read_latency.nanoseconds),
            "write": summary(self.i.write_latency.counts, self.i.write_latency.nanoseconds),
        }
        return counters


cdef class Connection(Export):
    """One client of an image."""

    def __init__(self, Image image not None):
        if self.image is not None:
            raise ValueError("a connection is opened once")
        self.image = image
        self.name, self.size, self.caches = image.name, image.size, True
        self.is_writable = image.i.file.is_writable
        client_open(&self.c, &image.i)
        self.is_open = True

    def close(self):
        if self.is_open:
            self.is_open = False
            client_close(&self.c)

    def __dealloc__(self):
        if self.is_open and self.image is not None:
            client_close(&self.c)

    # It looks at the file, which may wait: so the interpreter lock is given up in any case.
    cdef int read(self, buf, uint64_t offset) except 1:
        cdef Py_buffer view
        cdef int err
        PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE)
        with nogil:
            err = client_read(&self.c, view.buf, <uint64_t>view.len, offset)
        PyBuffer_Release(&view)
        return err

    cdef int write(self, buf, uint64_t offset, unsigned flags) except 1:
        cdef Py_buffer view
        cdef int err
        if not self.is_writable:
            return -EROFS
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        with nogil:
            err = client_write(&self.c, view.buf, <uint64_t>view.len, offset, flags)
        PyBuffer_Release(&view)
        return err

    cdef int sync(self) noexcept:
        cdef int err = 0
        if self.is_writable:
            with nogil:
                err = client_flush(&self.c)
        return err

    cdef int discard(self, uint64_t count, uint64_t offset, unsigned flags) noexcept:
        cdef int err = -EROFS
        if self.is_writable:
            with nogil:
                err = client_trim(&self.c, count, offset, flags)
        return err

    cdef int clear(self, uint64_t count, uint64_t offset, unsigned flags) noexcept:
        cdef int err = -EROFS
        if self.is_writable:
            with nogil:
                err = client_zero(&self.c, count, offset, flags)
        return err

    cdef int list_extents(self, uint64_t count, uint64_t offset, nbd_extent *to,
                          unsigned most) noexcept:
        cdef int n
        with nogil:
            n = client_extents(&self.c, count, offset, to, most)
        return n
