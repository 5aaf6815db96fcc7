# cython: language_level=3, binding=False
"""Swap devices as Python sees them, and nbdkit's per-request callbacks.

One call is one NBD request.  Requests of a page or two try first without giving the GIL away;
whatever would have to wait, and all larger ones, run without it.
"""

import errno
import os
import threading
from mmap import mmap as anonymous_memory

from bitarray import bitarray
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from preswapd.preswap.device._table cimport Entry
from preswapd.preswap.device.latency import summary
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

cdef int EAGAIN = -errno.EAGAIN

# Pages of work of our own in one flight.
cdef enum:
    PUNCH_AT_ONCE = 65536
    RECOMPRESS_AT_ONCE = 4096

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

cdef extern from "unistd.h" nogil:
    int close_fd "close"(int)

cdef extern from "fcntl.h":
    int fcntl(int, int, int)
    enum:
        F_DUPFD_CLOEXEC

cdef extern from "device.h" nogil:
    enum:
        FLIGHTS_OURS
        REQUEST_FUA
        REQUEST_NOWAIT
        REQUEST_FAST
        REQUEST_NO_TMEM
        REQUEST_REJECTED
        DEVICE_REJECTED
    ctypedef struct flights "struct flights":
        uint64_t connections
    ctypedef struct flight "struct flight":
        pass
    ctypedef struct disk_file "struct disk":
        int fd
        cbool no_punch
    ctypedef struct marks "struct marks":
        pass
    ctypedef struct device_counters "struct device_counters":
        uint64_t preswap_pages, disk_pages, lost_pages
        uint64_t loads, succ_stores, failed_stores, invalidates, lost_reads, quarantined_reads
        uint64_t disk_reads, disk_writes, disk_errors, punched_pages
        uint64_t trims, written_back_pages
        uint64_t read_requests, write_requests, trim_requests
    enum:
        LATENCY_BUCKETS
    ctypedef struct latency "struct latency":
        uint64_t counts[LATENCY_BUCKETS]
        uint64_t nanoseconds
    ctypedef struct device "struct device":
        const tmem_ops_t *tmem
        tmem_host *host
        uint32_t pool, type
        uint64_t pages
        tmem_compress compress
        uint8_t *map
        uint8_t *in_tmem
        uint8_t *on_disk
        uint8_t *outdated
        uint8_t *stale
        uint64_t stale_pages
        disk_file disk
        marks marks
        flights flights
        uint64_t max_pages
        uint64_t *quarantined
        int last_error
        device_counters count
        latency reads
        latency writes
    ctypedef struct extent "struct extent":
        uint64_t offset, length
        cbool hole
    ctypedef struct writeback_count "struct writeback":
        uint64_t moved, lost

    uint64_t latency_now()
    void latency_note(latency *, uint64_t)
    void marks_init(marks *)
    void marks_destroy(marks *)
    void flights_init(flights *)
    void flights_destroy(flights *)
    uint64_t flights_connect(flights *)
    void flights_disconnect(flights *)
    void flights_note_io(flights *)
    uint64_t flights_last_io(flights *)
    int flights_begin(flights *, flight *, uint64_t)
    int flights_try_begin(flights *, flight *, uint64_t)
    void flights_end(flights *, flight *)
    cbool flights_park(flights *, unsigned)
    void flights_close(flights *)
    uint64_t flights_now()

    void device_attach(device *)
    int device_pread(device *, void *, uint64_t, uint64_t, unsigned, uint64_t *)
    int device_pwrite(device *, const void *, uint64_t, uint64_t, unsigned, uint64_t *)
    int device_trim(device *, uint64_t, uint64_t, unsigned)
    int device_zero(device *, uint64_t, uint64_t, unsigned)
    int device_flush(device *)
    size_t device_extents(const device *, uint64_t, uint64_t, extent *, size_t)
    int device_writeback(device *, uint64_t, uint64_t, writeback_count *)
    ctypedef struct aged "struct aged":
        double seq
        uint64_t pages, extent
    size_t device_coldest(device *, aged *)
    int device_punch(device *, uint64_t, uint64_t, cbool)
    int64_t device_mend(device *)
    void disk_attach(disk_file *, int, uint64_t)
    void device_forget(device *, uint64_t, uint64_t)
    void device_set_codec(device *, tmem_compress)
    void device_recompress(device *, uint64_t, uint64_t)

if pin_init():
    raise MemoryError("no thread-specific key is left")

# nbdkit.set_error: an exception is EIO to the client unless this was called before.
set_error = None


cdef object failed(int err):
    """The exception for a negative errno, with nbdkit told."""
    if set_error is not None:
        set_error(-err)
    return OSError(-err, os.strerror(-err))


cdef class Extents:
    """The extents of a device with pages in tmem, the coldest first."""

    cdef aged *found
    cdef size_t n

    def __cinit__(self):
        self.found = NULL

    def __dealloc__(self):
        free(self.found)

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if not 0 <= i < self.n:
            raise IndexError(i)
        cdef aged *a = &self.found[i]
        return a.seq, a.pages, a.extent


cdef object zeroes(uint64_t pages):
    """A bit a page, and none to eight more that stay 0.

    The system zeroes its memory as it is touched; to do that here would keep the interpreter lock
    for 60 ms a TiB.
    """
    return bitarray(endian="little", buffer=anonymous_memory(-1, (pages + 7) // 8))


cdef class Device:
    """One swap device.  Its owner closes it when it is removed or the server stops."""

    cdef device d
    cdef Host host
    cdef readonly str name
    cdef str codec
    cdef readonly str configured_compress
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
        marks_init(&self.d.marks)
        flights_init(&self.d.flights)

    def __init__(self, Host host, *, uint32_t pool, Entry entry not None, str compress, int map_fd,
                 int image_fd, bint tmem_dirty, on_first_put):
        if self.attached:
            raise ValueError("a device is opened once")
        cdef uint64_t pages = entry.size // PAGE_SIZE
        self.host, self.name, self.size = host, entry.name, entry.size
        self.configured_compress = compress
        self.tmem_dirty, self.on_first_put = tmem_dirty, on_first_put
        self.dirty_lock = threading.Lock()
        self.d.tmem, self.d.host = host.ops(), host.pointer()
        self.d.pool, self.d.type, self.d.pages = pool, entry.type, pages
        self.compress = compress
        self.d.max_pages = <uint64_t>-1
        self.d.quarantined = entry.quarantine_word()
        self.map_bytes = (pages + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
        self.preswap_map = zeroes(pages)
        self.disk_map = zeroes(pages)
        # One piece of memory for both.
        self.d.outdated = <uint8_t *>calloc((pages + 7) // 8, 2)
        if self.d.outdated == NULL:
            raise MemoryError()
        self.d.stale = self.d.outdated + (pages + 7) // 8
        self.d.map = <uint8_t *>mmap(NULL, self.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                                     map_fd, 0)
        if <void *>self.d.map == MAP_FAILED:
            free(self.d.outdated)
            raise OSError(errno.ENOMEM, "the device's map cannot be mapped")
        # Exported, so that they can't be resized: native code holds their buffers.
        PyObject_GetBuffer(self.preswap_map, &self.tmem_bits, PyBUF_WRITABLE)
        PyObject_GetBuffer(self.disk_map, &self.disk_bits, PyBUF_WRITABLE)
        self.d.in_tmem = <uint8_t *>self.tmem_bits.buf
        self.d.on_disk = <uint8_t *>self.disk_bits.buf
        disk_attach(&self.d.disk, image_fd, self.size)
        self.attached = True
        with nogil:
            device_attach(&self.d)

    def close(self):
        """Nothing begins any more, what is in flight ends, and what it holds is given back."""
        with nogil:
            flights_close(&self.d.flights)
        if not self.attached:
            return
        self.attached = False
        PyBuffer_Release(&self.tmem_bits)
        PyBuffer_Release(&self.disk_bits)
        with nogil:
            munmap(self.d.map, self.map_bytes)
            free(self.d.outdated)
        os.close(self.d.disk.fd)

    def __dealloc__(self):
        # Whoever was in flight held a reference: the gate and the marks may go now.
        if self.attached:
            PyBuffer_Release(&self.tmem_bits)
            PyBuffer_Release(&self.disk_bits)
            munmap(self.d.map, self.map_bytes)
            free(self.d.outdated)
            close_fd(self.d.disk.fd)
        marks_destroy(&self.d.marks)
        flights_destroy(&self.d.flights)

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
    def disk_pages(self):
        return self.d.count.disk_pages

    @property
    def quarantined(self):
        return self.attached and self.d.quarantined[0] != 0

    @property
    def seconds_since_io(self):
        cdef uint64_t last = flights_last_io(&self.d.flights)
        if last == 0:
            return None
        return (flights_now() - last) / 1e9

    @property
    def disk_errors(self):
        return self.d.count.disk_errors

    @property
    def last_disk_error(self):
        return self.d.last_error

    @property
    def compress(self):
        return self.codec

    @compress.setter
    def compress(self, str codec not None):
        device_set_codec(&self.d, <tmem_compress>compress_number(codec))
        self.codec = codec

    @property
    def max_pages(self):
        return self.d.max_pages

    @max_pages.setter
    def max_pages(self, uint64_t pages):
        self.d.max_pages = pages

    def state_bytes(self):
        self.check_attached()
        return bytes((<const uint8_t *>self.d.map)[:self.d.pages])

    def stats(self):
        counters = dict(self.d.count)
        counters["size"] = self.size
        counters["connections"] = self.d.flights.connections
        counters["stale_pages"] = self.d.stale_pages
        counters["quarantined"] = self.quarantined
        counters["compress"] = self.compress
        counters["latency"] = {
            "read": summary(self.d.reads.counts, self.d.reads.nanoseconds),
            "write": summary(self.d.writes.counts, self.d.writes.nanoseconds),
        }
        return counters

    def metadata_size(self):
        return self.map_bytes + 4 * ((self.d.pages + 7) // 8)

    # --- what its owner does with it ---

    def connect(self):
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

    cdef int begin(self, flight *mine) except -1:
        """Work of our own, which a removal waits for."""
        cdef int err
        with nogil:
            err = flights_begin(&self.d.flights, mine, FLIGHTS_OURS)
        if err < 0:
            raise OSError(-err, f"the device {self.name} is being removed")
        return 0

    cdef int end(self, flight *mine, int err) except -1:
        flights_end(&self.d.flights, mine)
        if err < 0:
            raise OSError(-err, os.strerror(-err))
        return 0

    def write_page_zero(self, const uint8_t[::1] page not None):
        cdef flight mine
        cdef uint64_t done
        cdef int err
        if page.shape[0] != PAGE_SIZE:
            raise ValueError("a page is 4096 bytes")
        self.begin(&mine)
        with nogil:
            err = device_pwrite(&self.d, &page[0], 4096, 0, REQUEST_FUA, &done)
        self.end(&mine, err)

    def writeback(self, uint64_t extent, uint64_t most=EXTENT_PAGES):
        cdef writeback_count w
        cdef flight mine
        cdef int err
        w.moved = w.lost = 0
        if extent * EXTENT_PAGES >= self.d.pages:
            raise ValueError("no such extent")
        self.begin(&mine)
        with nogil:
            err = device_writeback(&self.d, extent * 256, most, &w)
        flights_end(&self.d.flights, &mine)
        return w.moved, w.lost, -err

    def coldest(self):
        cdef flight mine
        cdef Extents extents = Extents()
        cdef uint64_t most = (self.d.pages + EXTENT_PAGES - 1) // EXTENT_PAGES
        extents.found = <aged *>calloc(most, sizeof(aged))
        if extents.found == NULL:
            raise MemoryError()
        self.begin(&mine)
        with nogil:
            extents.n = device_coldest(&self.d, extents.found)
        self.end(&mine, 0)
        return extents

    cdef int check_range(self, uint64_t first, uint64_t pages) except -1:
        if first > self.d.pages or pages > self.d.pages - first:
            raise ValueError("out of range")
        return 0

    def punch(self, uint64_t first, uint64_t pages, bint all=False):
        cdef flight mine
        cdef uint64_t n
        cdef int err
        self.check_range(first, pages)
        # In pieces: a new connection's first request waits for each.
        while pages and (all or self.d.stale_pages):
            n = min(pages, <uint64_t>PUNCH_AT_ONCE)
            self.begin(&mine)
            with nogil:
                err = device_punch(&self.d, first, n, all)
            self.end(&mine, err)
            first += n
            pages -= n

    def recompress(self):
        cdef flight mine
        cdef uint64_t first = 0, n
        # In pieces, as in punch().
        while first < self.d.pages:
            n = min(self.d.pages - first, <uint64_t>RECOMPRESS_AT_ONCE)
            self.begin(&mine)
            with nogil:
                device_recompress(&self.d, first, n)
            self.end(&mine, 0)
            first += n

    def mend(self):
        cdef flight mine
        cdef int64_t lost
        self.begin(&mine)
        with nogil:
            lost = device_mend(&self.d)
        if lost == -errno.ENOENT:
            self.end(&mine, 0)
            return None
        self.end(&mine, <int>min(lost, 0))
        return lost

    def disk_file(self):
        if not self.attached:
            raise OSError(errno.EBADF, f"the device {self.name} is closed")
        # With the interpreter lock, under which alone it is closed.
        cdef int fd = fcntl(self.d.disk.fd, F_DUPFD_CLOEXEC, 0)
        if fd < 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return fd

    def forget(self, uint64_t first, uint64_t pages):
        cdef flight mine
        self.check_range(first, pages)
        self.begin(&mine)
        with nogil:
            device_forget(&self.d, first, pages)
        self.end(&mine, 0)

    def empty(self):
        """For a device whose requests have ended for good."""
        if not self.attached or not self.is_closed():
            raise ValueError(f"the device {self.name} is still served")
        with nogil:
            device_forget(&self.d, 0, self.d.pages)
        for_each_object(self, False)

    cdef bint is_closed(self) noexcept:
        cdef flight mine
        if flights_try_begin(&self.d.flights, &mine, FLIGHTS_OURS) == -errno.ESHUTDOWN:
            return True
        flights_end(&self.d.flights, &mine)
        return False

    def stop(self):
        with nogil:
            flights_close(&self.d.flights)

    def park(self, unsigned milliseconds):
        cdef bint ended
        with nogil:
            ended = flights_park(&self.d.flights, milliseconds)
        return ended

    def punch_parked(self, uint64_t first, uint64_t pages):
        """Like punch(), for a device that was parked and whose requests have ended."""
        cdef int err
        self.check_range(first, pages)
        self.check_attached()
        with nogil:
            err = device_punch(&self.d, first, pages, True)
        if err < 0:
            raise OSError(-err, os.strerror(-err))

    def sync(self):
        self.check_attached()
        os.fsync(self.d.disk.fd)

    cdef int check_attached(self) except -1:
        if not self.attached:
            raise ValueError(f"the device {self.name} is closed")
        return 0


cdef extern from "tmem.h" nogil:
    ctypedef struct index_ops "struct tmem_ops":
        int (*reserve_index)(tmem_host *, const tmem_handle *, uint32_t) noexcept nogil
        void (*forget_index)(tmem_host *, const tmem_handle *) noexcept nogil
        void (*give_back)(tmem_host *, cbool) noexcept nogil


cdef int for_each_object(Device device, bint reserve) except -1:
    """The index's upper levels of the sixteen objects: made, or freed after the last page."""
    cdef const index_ops *ops = <const index_ops *>device.d.tmem
    cdef tmem_handle h
    cdef uint32_t last = <uint32_t>((device.d.pages - 1) >> 4)
    cdef int err = 0
    h.pool, h.index = device.d.pool, 0
    for i in range(16):
        h.object = <uint64_t>device.d.type << 4 | <uint64_t>i
        with nogil:
            if reserve:
                err = ops.reserve_index(device.d.host, &h, last)
            else:
                ops.forget_index(device.d.host, &h)
        if err:
            for_each_object(device, False)
            raise MemoryError("no memory for the device's index")
    return 0


def reserve_index(Device device not None):
    """MemoryError when there is no room for it."""
    for_each_object(device, True)


def give_back(Host host not None):
    cdef const index_ops *ops = <const index_ops *>host.ops()
    cdef tmem_host *pointer = host.pointer()
    with nogil:
        ops.give_back(pointer, True)


cdef class Connection:
    """One client of a device; nbdkit's handle."""

    cdef readonly Device device
    cdef uint64_t epoch
    cdef bint closed

    def __init__(self, Device device not None):
        self.device = device
        self.epoch = flights_connect(&device.d.flights)
        self.closed = False

    def close(self):
        if not self.closed:
            self.closed = True
            flights_disconnect(&self.device.d.flights)

    def __dealloc__(self):
        if self.device is not None and not self.closed:
            flights_disconnect(&self.device.d.flights)

    cdef int begin(self, flight *mine) noexcept nogil:
        return flights_begin(&self.device.d.flights, mine, self.epoch)

    cdef int begin_io(self, flight *mine) noexcept nogil:
        cdef int err = self.begin(mine)
        if err == 0:
            flights_note_io(&self.device.d.flights)
        return err

    cdef int try_begin_io(self, flight *mine) noexcept nogil:
        cdef int err = flights_try_begin(&self.device.d.flights, mine, self.epoch)
        if err == 0:
            flights_note_io(&self.device.d.flights)
        return err

    # A small request tries without waiting, and goes on without the interpreter lock where that
    # does not do.  It stays one flight: between two of its own, a client that lost its connection
    # could send it again and write something newer, which the second half would overwrite.

    cdef int read(self, void *to, uint64_t count, uint64_t offset) noexcept:
        cdef device *d = &self.device.d
        cdef flight mine
        cdef uint64_t done = 0, since = latency_now()
        cdef int begun = EAGAIN, err = EAGAIN
        if count <= SMALL:
            begun = self.try_begin_io(&mine)
            if begun == 0:
                err = device_pread(d, to, count, offset, REQUEST_NOWAIT, &done)
        if err == EAGAIN:
            with nogil:
                if begun == EAGAIN:
                    begun = self.begin_io(&mine)
                if begun == 0:
                    err = device_pread(d, <uint8_t *>to + done, count - done, offset + done, 0,
                                       &done)
        if begun < 0:
            return begun
        flights_end(&d.flights, &mine)
        latency_note(&d.reads, since)
        return err

    cdef int write(self, const void *from_, uint64_t count, uint64_t offset,
                   unsigned flags) noexcept:
        cdef device *d = &self.device.d
        cdef flight mine
        cdef uint64_t done = 0, since = latency_now()
        cdef int begun = EAGAIN, err = EAGAIN
        if count <= SMALL:
            begun = self.try_begin_io(&mine)
            if begun == 0:
                err = device_pwrite(d, from_, count, offset, flags | REQUEST_NOWAIT, &done)
        if err == DEVICE_REJECTED:
            flags |= REQUEST_REJECTED
        if err == DEVICE_REJECTED or err == EAGAIN:
            with nogil:
                if begun == EAGAIN:
                    begun = self.begin_io(&mine)
                if begun == 0:
                    err = device_pwrite(d, <const uint8_t *>from_ + done, count - done,
                                        offset + done, flags, &done)
        if begun < 0:
            return begun
        flights_end(&d.flights, &mine)
        latency_note(&d.writes, since)
        return err

    cdef int inside(self, uint64_t count, uint64_t offset) except -1:
        if offset > self.device.size or count > self.device.size - offset:
            raise failed(-errno.EINVAL)
        return 0

    def pread(self, buf, uint64_t offset, int flags=0):
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

    cdef unsigned admission(self) except *:
        """No page enters tmem before the sidecar says that some may be there.

        Only in flight: a sidecar that is written after the device was removed brings it back.
        """
        if self.device.tmem_dirty or self.device.mark_dirty():
            return 0
        return REQUEST_NO_TMEM

    cdef int write_first(self, const void *from_, uint64_t count, uint64_t offset) except? -1:
        cdef device *d = &self.device.d
        cdef flight mine
        cdef uint64_t done, since = latency_now()
        cdef int err
        cdef unsigned how
        with nogil:
            err = self.begin_io(&mine)
        if err < 0:
            return err
        try:
            how = self.admission()
            with nogil:
                err = device_pwrite(d, from_, count, offset, how, &done)
            latency_note(&d.writes, since)
        finally:
            flights_end(&d.flights, &mine)
        return err

    def pwrite(self, buf, uint64_t offset, int flags=0):
        cdef Py_buffer view
        cdef int err
        cdef unsigned how = REQUEST_FUA if flags & FLAG_FUA else 0
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        try:
            self.inside(<uint64_t>view.len, offset)
            if how or self.device.tmem_dirty or offset + view.len <= PAGE_SIZE:
                err = self.write(view.buf, <uint64_t>view.len, offset, how)
            else:
                err = self.write_first(view.buf, <uint64_t>view.len, offset)
        finally:
            PyBuffer_Release(&view)
        if err < 0:
            raise failed(err)

    def flush(self, int flags=0):
        cdef flight mine
        cdef int err
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
            err = self.begin_io(&mine)
            if err == 0:
                err = device_trim(&self.device.d, count, offset, how)
                flights_end(&self.device.d.flights, &mine)
        if err < 0:
            raise failed(err)

    def zero(self, uint64_t count, uint64_t offset, int flags=0):
        cdef flight mine
        cdef int err
        cdef unsigned how = REQUEST_FUA if flags & FLAG_FUA else 0
        self.inside(count, offset)
        if flags & FLAG_FAST_ZERO:
            how |= REQUEST_FAST
        with nogil:
            err = self.begin_io(&mine)
        if err < 0:
            raise failed(err)
        try:
            # Only ragged ends are written.
            if not how and (offset % PAGE_SIZE or count % PAGE_SIZE):
                how = self.admission()
            with nogil:
                err = device_zero(&self.device.d, count, offset, how)
        finally:
            flights_end(&self.device.d.flights, &mine)
        if err < 0:
            raise failed(err)

    def extents(self, uint64_t count, uint64_t offset, int flags=0):
        cdef extent found[EXTENTS_AT_ONCE]
        cdef flight mine
        cdef size_t n = 0, i
        cdef int err
        self.inside(count, offset)
        with nogil:
            err = self.begin(&mine)
            if err == 0:
                n = device_extents(&self.device.d, count, offset, found, EXTENTS_AT_ONCE)
                flights_end(&self.device.d.flights, &mine)
        if err < 0:
            raise failed(err)
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
