# cython: language_level=3, binding=False
"""Swap devices as Python sees them, and nbdkit's per-request callbacks.

One call is one NBD request.  Requests of a page or two try first without giving the GIL away;
whatever would have to wait, and all larger ones, run without it.
"""

import errno
import os
import threading

from bitarray import bitarray
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from preswapd.tmem._tmem cimport (
    Host,
    cbool,
    compress_number,
    tmem_compress,
    tmem_handle,
    tmem_host,
    tmem_ops_t,
)

PAGE_SIZE = 4096
EXTENT_PAGES = 256

# nbdkit's request flags (nbdkit-plugin(3)).
FLAG_FUA = 2
FLAG_FAST_ZERO = 8

# nbdkit's extent types (nbdkit-plugin(3)).
EXTENT_HOLE_ZERO = 3
cdef enum:
    EXTENTS_AT_ONCE = 512

# Requests up to two pages keep the GIL: giving it away and taking it back costs as much as they do.
cdef enum:
    SMALL = 8192

cdef extern from "pin.h":
    int pin_init()
    void pin_thread()

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    enum:
        PROT_READ
        PROT_WRITE
        MAP_SHARED
    void *MAP_FAILED

cdef extern from "device.h" nogil:
    enum:
        REQUEST_FUA
        REQUEST_NOWAIT
        REQUEST_FAST
        REQUEST_NO_TMEM
    ctypedef struct flights "struct flights":
        uint64_t connections, last_io
    ctypedef struct flight "struct flight":
        pass
    ctypedef struct disk_file "struct disk":
        int fd
        cbool no_punch
    ctypedef struct marks "struct marks":
        pass
    ctypedef struct device_counters "struct device_counters":
        uint64_t preswap_pages, disk_pages, lost_pages
        uint64_t loads, succ_stores, failed_stores, invalidates
        uint64_t disk_reads, disk_writes, disk_errors, punched_pages
        uint64_t trims, written_back_pages
        uint64_t read_requests, write_requests, trim_requests
    ctypedef struct device "struct device":
        const tmem_ops_t *tmem
        tmem_host *host
        uint32_t pool, type
        uint64_t pages
        tmem_compress compress
        uint8_t *map
        uint8_t *in_tmem
        uint8_t *on_disk
        uint8_t *stale
        uint64_t stale_pages
        disk_file disk
        marks marks
        flights flights
        uint64_t max_pages
        cbool quarantined
        int last_error
        device_counters count
    ctypedef struct extent "struct extent":
        uint64_t offset, length
        cbool hole
    ctypedef struct writeback_count "struct writeback":
        uint64_t moved, lost

    void marks_init(marks *)
    void marks_destroy(marks *)
    void flights_init(flights *)
    void flights_destroy(flights *)
    uint64_t flights_connect(flights *)
    void flights_disconnect(flights *)
    cbool flights_begin(flights *, flight *)
    void flights_end(flights *, flight *)
    cbool flights_older(flights *, uint64_t)
    void flights_wait_older(flights *, uint64_t)
    void flights_close(flights *)
    uint64_t flights_now()

    void device_attach(device *)
    int device_pread(device *, void *, uint64_t, uint64_t, unsigned)
    int device_pwrite(device *, const void *, uint64_t, uint64_t, unsigned)
    int device_trim(device *, uint64_t, uint64_t, unsigned)
    int device_zero(device *, uint64_t, uint64_t, unsigned)
    int device_flush(device *)
    size_t device_extents(const device *, uint64_t, uint64_t, extent *, size_t)
    int device_writeback(device *, uint64_t, writeback_count *)
    void device_ages(device *, uint64_t *, double *)
    int device_punch(device *, uint64_t, uint64_t, cbool)
    void device_forget(device *, uint64_t, uint64_t)

if pin_init():
    raise MemoryError("no thread-specific key is left")

# nbdkit.set_error: an exception is EIO to the client unless this was called before.
set_error = None


cdef object failed(int err):
    """The exception for a negative errno, with nbdkit told."""
    if set_error is not None:
        set_error(-err)
    return OSError(-err, os.strerror(-err))


cdef class Device:
    """One swap device.  Its owner closes it when nobody uses it any more."""

    cdef device d
    cdef Host host
    cdef readonly str name
    cdef readonly str compress
    cdef readonly uint64_t size
    cdef readonly object preswap_map
    cdef readonly object disk_map
    cdef Py_buffer tmem_bits
    cdef Py_buffer disk_bits
    cdef size_t map_bytes
    cdef bint attached
    cdef readonly bint tmem_dirty
    cdef object on_first_put
    cdef object dirty_lock

    def __cinit__(self):
        memset(&self.d, 0, sizeof(self.d))
        self.d.disk.fd = -1
        self.attached = False

    def __init__(self, Host host, *, uint32_t pool, uint32_t type, str name, uint64_t size,
                 str compress, int map_fd, int image_fd, bint quarantined, bint tmem_dirty,
                 on_first_put):
        """Takes over image_fd. map_fd: one state byte for each page, allocated in full.

        on_first_put() is called before a page enters tmem for the first time; if it raises
        OSError, tmem stays closed to this device and it is asked again at the next write.
        """
        if self.attached:
            raise ValueError("a device is opened once")
        cdef uint64_t pages = size // PAGE_SIZE
        self.host, self.name, self.size, self.compress = host, name, size, compress
        self.tmem_dirty, self.on_first_put = tmem_dirty, on_first_put
        self.dirty_lock = threading.Lock()
        self.d.tmem, self.d.host = host.ops(), host.pointer()
        self.d.pool, self.d.type, self.d.pages = pool, type, pages
        self.d.compress = <tmem_compress>compress_number(compress)
        self.d.max_pages = <uint64_t>-1
        self.d.quarantined = quarantined
        self.map_bytes = (pages + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
        self.d.stale = <uint8_t *>calloc((pages + 7) // 8, 1)
        if self.d.stale == NULL:
            raise MemoryError()
        self.d.map = <uint8_t *>mmap(NULL, self.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                                     map_fd, 0)
        if <void *>self.d.map == MAP_FAILED:
            self.d.map = NULL
            free(self.d.stale)
            self.d.stale = NULL
            raise OSError(errno.ENOMEM, "the device's map cannot be mapped")
        # Exported, so that they can't be resized: native code holds their buffers.
        self.preswap_map = bitarray(pages, endian="little")
        self.disk_map = bitarray(pages, endian="little")
        self.preswap_map.setall(0)
        self.disk_map.setall(0)
        PyObject_GetBuffer(self.preswap_map, &self.tmem_bits, PyBUF_WRITABLE)
        PyObject_GetBuffer(self.disk_map, &self.disk_bits, PyBUF_WRITABLE)
        self.d.in_tmem = <uint8_t *>self.tmem_bits.buf
        self.d.on_disk = <uint8_t *>self.disk_bits.buf
        marks_init(&self.d.marks)
        flights_init(&self.d.flights)
        self.d.disk.fd = image_fd
        self.attached = True
        with nogil:
            device_attach(&self.d)

    def close(self):
        """No request begins any more; those in flight end first."""
        if not self.attached:
            return
        with nogil:
            flights_close(&self.d.flights)
        self._free()

    cdef _free(self):
        self.attached = False
        PyBuffer_Release(&self.tmem_bits)
        PyBuffer_Release(&self.disk_bits)
        munmap(self.d.map, self.map_bytes)
        free(self.d.stale)
        os.close(self.d.disk.fd)
        marks_destroy(&self.d.marks)
        flights_destroy(&self.d.flights)

    def __dealloc__(self):
        if self.attached:
            self._free()

    cdef int check(self) except -1:
        if not self.attached:
            raise ValueError(f"the device {self.name} is closed")
        return 0

    # --- what it is ---

    @property
    def type(self):
        return self.d.type

    @property
    def pages(self):
        return self.d.pages

    @property
    def connections(self):
        return self.d.flights.connections

    @property
    def preswap_pages(self):
        return self.d.count.preswap_pages

    @property
    def quarantined(self):
        return self.d.quarantined

    @property
    def seconds_since_io(self):
        """None when there was no request yet."""
        if self.d.flights.last_io == 0:
            return None
        return (flights_now() - self.d.flights.last_io) / 1e9

    @property
    def last_disk_error(self):
        """The newest errno of the disk file, 0 for none."""
        return self.d.last_error

    @property
    def max_pages(self):
        return self.d.max_pages

    @max_pages.setter
    def max_pages(self, uint64_t pages):
        self.d.max_pages = pages

    def state_bytes(self):
        """A copy of the map: one state byte for each page."""
        self.check()
        return bytes((<const uint8_t *>self.d.map)[:self.d.pages])

    def stats(self):
        counters = dict(self.d.count)
        counters["size"] = self.size
        counters["connections"] = self.d.flights.connections
        counters["stale_pages"] = self.d.stale_pages
        counters["quarantined"] = bool(self.d.quarantined)
        counters["compress"] = self.compress
        return counters

    def metadata_size(self):
        """Bytes of the map and the three bitarrays."""
        return self.map_bytes + 3 * ((self.d.pages + 7) // 8)

    # --- what its owner does with it ---

    def connect(self):
        self.check()
        return Connection(self)

    cdef bint mark_dirty(self) except -1:
        """True once the sidecar says that pages are in tmem."""
        with self.dirty_lock:
            if not self.tmem_dirty:
                try:
                    self.on_first_put()
                except OSError:
                    return False
                self.tmem_dirty = True
        return True

    def clean(self):
        """Called when the sidecar says that tmem holds nothing of this device."""
        self.tmem_dirty = False

    def write_page_zero(self, bytes page):
        """Written through to disk, and synced."""
        cdef const char *from_ = page
        cdef flight mine
        cdef int err
        self.check()
        if len(page) != PAGE_SIZE:
            raise ValueError("a page is 4096 bytes")
        with nogil:
            if flights_begin(&self.d.flights, &mine):
                err = device_pwrite(&self.d, from_, 4096, 0, REQUEST_FUA)
                flights_end(&self.d.flights, &mine)
            else:
                err = -108     # ESHUTDOWN
        if err < 0:
            raise OSError(-err, os.strerror(-err))

    def writeback(self, uint64_t extent):
        """Moves the extent's pages from tmem to disk: (moved, lost, errno or 0)."""
        cdef writeback_count w
        cdef int err
        self.check()
        w.moved = w.lost = 0
        if extent * EXTENT_PAGES >= self.d.pages:
            raise ValueError("no such extent")
        with nogil:
            err = device_writeback(&self.d, extent * 256, &w)
        return w.moved, w.lost, -err

    def ages(self):
        """[(mean sequence number, pages, extent)] of the extents with pages in tmem."""
        cdef uint64_t n = (self.d.pages + EXTENT_PAGES - 1) // EXTENT_PAGES, i
        cdef uint64_t *pages
        cdef double *seqs
        self.check()
        pages = <uint64_t *>calloc(n, sizeof(uint64_t))
        seqs = <double *>calloc(n, sizeof(double))
        try:
            if pages == NULL or seqs == NULL:
                raise MemoryError()
            with nogil:
                device_ages(&self.d, pages, seqs)
            return [(seqs[i] / pages[i], pages[i], i) for i in range(n) if pages[i]]
        finally:
            free(pages)
            free(seqs)

    def punch(self, uint64_t first, uint64_t pages, bint all=False):
        """Gives disk space back where pages were trimmed (all: wherever no page is on disk)."""
        cdef int err
        self.check()
        if first > self.d.pages or pages > self.d.pages - first:
            raise ValueError("out of range")
        if not all and self.d.stale_pages == 0:
            return
        with nogil:
            err = device_punch(&self.d, first, pages, all)
        if err < 0:
            raise OSError(-err, os.strerror(-err))

    def forget(self, uint64_t first, uint64_t pages):
        """The pages read as zeros afterwards, as after a trim."""
        self.check()
        if first > self.d.pages or pages > self.d.pages - first:
            raise ValueError("out of range")
        with nogil:
            device_forget(&self.d, first, pages)

    def stop(self):
        """No request begins any more; returns when those in flight have ended."""
        self.check()
        with nogil:
            flights_close(&self.d.flights)

    def forget_index(self):
        """Frees the index's upper levels, after the last page is gone."""
        forget_index(self)


cdef extern from "tmem.h" nogil:
    ctypedef struct forget_ops "struct tmem_ops":
        int (*reserve_index)(tmem_host *, const tmem_handle *, uint32_t)
        void (*forget_index)(tmem_host *, const tmem_handle *)
        void (*give_back)(tmem_host *, cbool)


cdef forget_index(Device device):
    cdef const forget_ops *ops = <const forget_ops *>device.d.tmem
    cdef tmem_handle h
    h.pool, h.index = device.d.pool, 0
    for i in range(16):
        h.object = <uint64_t>device.d.type << 4 | <uint64_t>i
        ops.forget_index(device.d.host, &h)


def reserve_index(Host host, uint32_t pool, uint32_t type, uint64_t pages):
    """The index's upper levels for a device; MemoryError when there is no room for them."""
    cdef const forget_ops *ops = <const forget_ops *>host.ops()
    cdef tmem_handle h
    h.pool, h.index = pool, 0
    for i in range(16):
        h.object = <uint64_t>type << 4 | <uint64_t>i
        if ops.reserve_index(host.pointer(), &h, <uint32_t>((pages - 1) >> 4)):
            raise MemoryError("no memory for the device's index")


def give_back(Host host):
    """Empty slabs go back to the system at once."""
    cdef const forget_ops *ops = <const forget_ops *>host.ops()
    cdef tmem_host *pointer = host.pointer()
    with nogil:
        ops.give_back(pointer, True)


cdef class Connection:
    """One client of a device; nbdkit's handle."""

    cdef readonly Device device
    cdef uint64_t epoch
    cdef bint fenced, closed

    def __init__(self, Device device not None):
        self.device = device
        self.epoch = flights_connect(&device.d.flights)
        self.fenced = False
        self.closed = False

    def close(self):
        if not self.closed:
            self.closed = True
            if self.device.attached:
                flights_disconnect(&self.device.d.flights)

    def __dealloc__(self):
        if self.device is not None and not self.closed and self.device.attached:
            flights_disconnect(&self.device.d.flights)

    cdef bint may_be_quick(self) noexcept:
        """The requests of older connections have ended (DESIGN 4b), as far as a look tells."""
        if not self.fenced:
            self.fenced = not flights_older(&self.device.d.flights, self.epoch)
        return self.fenced

    cdef int begin(self, flight *mine) noexcept nogil:
        if not self.fenced:
            flights_wait_older(&self.device.d.flights, self.epoch)
            self.fenced = True
        return 0 if flights_begin(&self.device.d.flights, mine) else -108     # ESHUTDOWN

    cdef int read(self, void *to, uint64_t count, uint64_t offset) noexcept:
        cdef device *d = &self.device.d
        cdef flight mine
        cdef int err = -11                                                     # EAGAIN
        if count <= SMALL and self.may_be_quick():
            if not flights_begin(&d.flights, &mine):
                return -108
            err = device_pread(d, to, count, offset, REQUEST_NOWAIT)
            flights_end(&d.flights, &mine)
        if err != -11:
            return err
        with nogil:
            err = self.begin(&mine)
            if err == 0:
                err = device_pread(d, to, count, offset, 0)
                flights_end(&d.flights, &mine)
        return err

    cdef int write(self, const void *from_, uint64_t count, uint64_t offset,
                   unsigned flags) noexcept:
        cdef device *d = &self.device.d
        cdef flight mine
        cdef int err = -11
        if count <= SMALL and self.may_be_quick():
            if not flights_begin(&d.flights, &mine):
                return -108
            err = device_pwrite(d, from_, count, offset, flags | REQUEST_NOWAIT)
            flights_end(&d.flights, &mine)
        if err != -11:
            return err
        with nogil:
            err = self.begin(&mine)
            if err == 0:
                err = device_pwrite(d, from_, count, offset, flags)
                flights_end(&d.flights, &mine)
        return err

    cdef int inside(self, uint64_t count, uint64_t offset) except -1:
        self.device.check()
        if offset > self.device.size or count > self.device.size - offset:
            raise failed(-22)                                                  # EINVAL
        return 0

    def pread(self, buf, uint64_t offset, int flags=0):
        """Fills the writable buffer."""
        cdef Py_buffer view
        cdef int err
        PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE)
        try:
            self.inside(<uint64_t>view.len, offset)
            err = self.read(view.buf, <uint64_t>view.len, offset)
        finally:
            PyBuffer_Release(&view)
        if err < 0:
            raise failed(err)

    def pwrite(self, buf, uint64_t offset, int flags=0):
        cdef Py_buffer view
        cdef int err
        cdef unsigned how = REQUEST_FUA if flags & FLAG_FUA else 0
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        try:
            self.inside(<uint64_t>view.len, offset)
            if not self.device.tmem_dirty and not how and offset + view.len > PAGE_SIZE:
                if not self.device.mark_dirty():
                    how |= REQUEST_NO_TMEM
            err = self.write(view.buf, <uint64_t>view.len, offset, how)
        finally:
            PyBuffer_Release(&view)
        if err < 0:
            raise failed(err)

    def flush(self, int flags=0):
        cdef flight mine
        cdef int err
        self.device.check()
        with nogil:
            err = self.begin(&mine)
            if err == 0:
                err = device_flush(&self.device.d)
                flights_end(&self.device.d.flights, &mine)
        if err < 0:
            raise failed(err)

    def trim(self, uint64_t count, uint64_t offset, int flags=0):
        cdef flight mine
        cdef int err
        cdef unsigned how = REQUEST_FUA if flags & FLAG_FUA else 0
        self.inside(count, offset)
        with nogil:
            err = self.begin(&mine)
            if err == 0:
                err = device_trim(&self.device.d, count, offset, how)
                flights_end(&self.device.d.flights, &mine)
        if err < 0:
            raise failed(err)

    def zero(self, uint64_t count, uint64_t offset, int flags=0):
        cdef flight mine
        cdef int err
        cdef unsigned how = REQUEST_FUA if flags & FLAG_FUA else 0
        if flags & FLAG_FAST_ZERO:
            how |= REQUEST_FAST
        self.inside(count, offset)
        if not self.device.tmem_dirty and not self.device.mark_dirty():
            how |= REQUEST_NO_TMEM             # ragged ends may enter tmem
        with nogil:
            err = self.begin(&mine)
            if err == 0:
                err = device_zero(&self.device.d, count, offset, how)
                flights_end(&self.device.d.flights, &mine)
        if err < 0:
            raise failed(err)

    def extents(self, uint64_t count, uint64_t offset, int flags=0):
        """[(offset, length, type)] as nbdkit wants them; at most 512, from offset on."""
        cdef extent found[EXTENTS_AT_ONCE]
        cdef size_t n, i
        self.inside(count, offset)
        with nogil:
            n = device_extents(&self.device.d, count, offset, found, EXTENTS_AT_ONCE)
        return [(found[i].offset, found[i].length, EXTENT_HOLE_ZERO if found[i].hole else 0)
                for i in range(n)]


# --- nbdkit's callbacks: put into the plugin's namespace as they are ---

def pread(Connection h not None, buf, uint64_t offset, int flags):
    pin_thread()
    h.pread(buf, offset, flags)


def pwrite(Connection h not None, buf, uint64_t offset, int flags):
    pin_thread()
    h.pwrite(buf, offset, flags)


def flush(Connection h not None, int flags):
    pin_thread()
    h.flush(flags)


def trim(Connection h not None, uint64_t count, uint64_t offset, int flags):
    pin_thread()
    h.trim(count, offset, flags)


def zero(Connection h not None, uint64_t count, uint64_t offset, int flags):
    pin_thread()
    h.zero(count, offset, flags)


def extents(Connection h not None, uint64_t count, uint64_t offset, int flags):
    pin_thread()
    return h.extents(count, offset, flags)
