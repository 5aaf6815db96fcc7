# cython: language_level=3, binding=False
# SPDX-License-Identifier: BSD-3-Clause
"""Swap devices as Python sees them: who owns their memory, and when the interpreter lock is held.

What they do is in C, see device.h, owner.h and connection.h.
"""

import os
import sys
import threading
from mmap import mmap as anonymous_memory

from bitarray import bitarray
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.errno cimport EAGAIN, EBUSY, EINVAL, EIO, ENOENT, ENOMEM, ESHUTDOWN
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from preswapd.block._export cimport REQUEST_FAST_ZERO, REQUEST_FUA, nbd_extent
from preswapd.block._export cimport Connection as Export
from preswapd.block.latency import summary
from preswapd.preswap.device._table cimport Entry
from preswapd.tmem._tmem cimport compress_number

PAGE_SIZE = PAGE_BYTES
EXTENT_PAGES = EXTENT_PAGES_OF_DEVICE
SPACE_BYTES = CONTENTS_SPACE
PACKED_BYTES = CONTENTS_PACKED
FLAG_FUA = REQUEST_FUA
FLAG_FAST_ZERO = REQUEST_FAST_ZERO
# As in device.h.
GUESTS = ("here", "coming", "gone")


def least_weight(uint8_t step):
    """Of a step of `Device.weigh()`: 64ths of a turn times bytes."""
    return weight_least(step)


cdef extern from "buffer.h" nogil:
    uint64_t transfer_buffers_held()


def transfer_buffers():
    return transfer_buffers_held()


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
        return (a.touches, a.seq), a.pages, a.extent


cdef object zeroes(uint64_t pages):
    """A bit a page, and none to eight more that stay 0.

    The system zeroes its memory as it is touched; to do that here would keep the interpreter lock
    for 60 ms a TiB.
    """
    return bitarray(endian="little", buffer=anonymous_memory(-1, (pages + 7) // 8))


# Called in flight, and without a lock.
cdef int mark_owner(void *owner) noexcept with gil:
    try:
        return (<Device>owner).mark()
    except OSError as error:
        return -error.errno if error.errno else -EIO
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return -EIO


# The same, of a guest's first change; what the other host does not answer in time is an error.
cdef int take_owner(void *owner) noexcept with gil:
    try:
        return (<Device>owner).take()
    except OSError as error:
        return -error.errno if error.errno else -EIO
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return -EIO


cdef int fetch_owner(void *owner, uint64_t first, uint32_t pages, uint8_t *to) noexcept with gil:
    try:
        return (<Device>owner).fetch(first, pages, to)
    except OSError as error:
        return -error.errno if error.errno else -EIO
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return -EIO


cdef int put_zone(zone *z, ranges, uint64_t pages) except -1:
    """Ranges of pages in order; the most of a device lies behind those of its first half."""
    if not 0 < len(ranges) <= ZONE_MOST:
        raise ValueError(f"a zone has 1 to {ZONE_MOST} ranges")
    z.n, z.low_end, z.high_first = <uint32_t>len(ranges), 0, pages
    for i, part in enumerate(ranges):
        z.ranges[i].first, z.ranges[i].end = part.start, part.stop
        if part.stop <= pages // 2:
            z.low_end = part.stop
        elif i and part.start < z.high_first:
            z.high_first = part.start
        elif not i:
            z.low_end = part.stop
    return 0


cdef int contents_in(uint8_t[::1] space, contents *c) except -1:
    if space.shape[0] != CONTENTS_SPACE or <size_t>&space[0] % PAGE_BYTES:
        raise ValueError(f"contents need {CONTENTS_SPACE} bytes, aligned as a page is")
    memset(c, 0, sizeof(c[0]))
    c.space = &space[0]
    return 0


cdef int64_t extent_pages(device *d, uint64_t first) except -1:
    if first % EXTENT_PAGES_OF_DEVICE or first >= d.pages:
        raise ValueError("no such extent")
    return min(<uint64_t>EXTENT_PAGES_OF_DEVICE, d.pages - first)


cdef class Epochs:
    """When pages were used last: what the devices of an instance share, see epochs.h."""

    def __cinit__(self):
        self.is_ready = not epochs_init(&self.e)

    def __init__(self):
        if not self.is_ready:
            raise MemoryError()

    def __dealloc__(self):
        epochs_destroy(&self.e)

    def set_turn(self, uint64_t pages):
        epochs_set_turn(&self.e, pages)

    def begin(self):
        return epochs_begin(&self.e)

    @property
    def are_scarce(self):
        return epochs_are_scarce(&self.e)

    def change_over(self):
        epochs_change_over(&self.e)

    def reused(self):
        return [self.e.reused[i] for i in range(REUSE_STEPS)]


cdef class Sampler:
    """How far apart the uses of pages are: what the devices of an instance share, see sampler.h."""

    def __cinit__(self, unsigned shift=SAMPLER_SHIFT):
        self.is_ready = not sampler_init(&self.s, shift)

    def __init__(self, unsigned shift=SAMPLER_SHIFT):
        if not self.is_ready:
            raise MemoryError()

    def __dealloc__(self):
        sampler_destroy(&self.s)

    def turn(self):
        with nogil:
            sampler_turn(&self.s)

    def state(self):
        cdef sampler_now now
        with nogil:
            sampler_state(&self.s, &now)
        return now.one_in, now.samples


def step_pages(unsigned step):
    """The least distance of a step of `Device.reads()`, in pages."""
    return (16 + step % 16) * 2.0 ** (step // 16) / 16


def step_seconds(unsigned step):
    """The least seconds of a step of `Epochs.reused()` and `Device.idle_pages()`."""
    return (4 + step % 4) * 2.0 ** (step // 4) / 4 if step else 0.0


cdef class Device:
    """One swap device.  Its owner closes it when it is removed or the server stops."""

    def __cinit__(self):
        # All else is zeros.
        disk_init(&self.d.disk)
        marks_init(&self.d.marks)
        flights_init(&self.d.flights)

    def __init__(self, Host host not None, Epochs epochs not None, Sampler sampler not None, *,
                 uint32_t pool, Entry entry not None, str compress, zone, int map_fd, int disk_fd,
                 bint is_marked, on_mark):
        if self.host is not None:
            raise ValueError("a device is opened once")
        cdef uint64_t pages = entry.size // PAGE_BYTES
        self.d.tmem, self.d.host = host.ops(), host.pointer()
        self.host, self.name, self.size = host, entry.name, entry.size
        self.epochs, self.d.epochs = epochs, &epochs.e
        self.sampler, self.d.sampler = sampler, &sampler.s
        self.configured_compress = compress
        self.on_mark = on_mark
        # Who takes it may have to give its pages up, which marks it.
        self.mark_lock = threading.RLock()
        self.d.mark, self.d.owner = mark_owner, <void *>self
        self.d.take, self.d.fetch = take_owner, fetch_owner
        device_set_marked(&self.d, is_marked)
        put_zone(&self.d.zone, zone, pages)
        self.d.pool, self.d.type, self.d.pages = pool, entry.type, pages
        self.compress = compress
        device_set_max_pages(&self.d, <uint64_t>-1)
        self.preswap_map = zeroes(pages)
        # Exported, so that it can't be resized: native code holds its buffer.
        PyObject_GetBuffer(self.preswap_map, &self.tmem_bits, PyBUF_WRITABLE)
        self.d.in_tmem = <uint8_t *>self.tmem_bits.buf
        if device_map(&self.d, map_fd):
            raise OSError(ENOMEM, "the device's map cannot be mapped")
        # Last: whoever fails before has left it to the caller.
        disk_attach(&self.d.disk, disk_fd, self.size)
        with nogil:
            device_attach(&self.d)
        self.is_attached = True

    cdef int release(self) except -1:
        """Whatever it holds, once."""
        self.is_attached = False
        if self.is_released:
            return 0
        self.is_released = True
        if self.tmem_bits.buf != NULL:
            PyBuffer_Release(&self.tmem_bits)
        with nogil:
            device_release(&self.d)
        return 0

    def close(self):
        """Nothing begins any more, what is in flight ends, and what it holds is given back."""
        with nogil:
            flights_close(&self.d.flights)
        self.release()

    def __dealloc__(self):
        # Whoever was in flight held a reference: the gate and the marks may go now.
        self.release()
        disk_destroy(&self.d.disk)
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
    def disk_traffic(self):
        return self.d.count.disk_reads + self.d.count.failed_stores

    @property
    def is_marked(self):
        return bool(device_is_marked(&self.d))

    @property
    def seconds_since_io(self):
        cdef double seconds = flights_seconds_since_io(&self.d.flights)
        return None if seconds < 0 else seconds

    @property
    def is_asked(self):
        return bool(flights_are_asked(&self.d.flights))

    @property
    def events(self):
        return (flights_requests(&self.d.flights) + self.d.count.disk_errors
                + self.d.count.lost_reads + self.d.count.unknown_reads)

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
        device_set_compress(&self.d, <tmem_compress>compress_number(codec))
        self.codec = codec

    @property
    def max_pages(self):
        return self.d.max_pages

    @max_pages.setter
    def max_pages(self, uint64_t pages):
        device_set_max_pages(&self.d, pages)

    @property
    def promoted_below(self):
        return None if self.d.promoted_below == PROMOTE_ALL else self.d.promoted_below

    @promoted_below.setter
    def promoted_below(self, weight):
        device_set_promoted_below(&self.d, PROMOTE_ALL if weight is None else weight)

    def is_on_disk(self, uint64_t page):
        self.check_attached()
        if page >= self.d.pages:
            raise ValueError("no such page")
        return device_state(&self.d, page) == DISK

    def state_bytes(self, uint64_t first=0, uint64_t most=<uint64_t>-1):
        self.check_attached()
        if first > self.d.pages:
            raise ValueError("no such page")
        return bytes((<const uint8_t *>self.d.map)[first:first + min(most, self.d.pages - first)])

    def stats(self):
        counters = dict(self.d.count)
        counters["size"] = self.size
        counters["connections"] = self.d.flights.connections
        counters["stale_pages"] = self.d.to_punch_pages
        # There is no quarantine any more; who reads these fields finds none.
        counters["quarantined"], counters["quarantined_reads"] = False, 0
        counters["compress"] = self.compress
        counters["latency"] = {
            "read": summary(self.d.reads.counts, self.d.reads.nanoseconds),
            "write": summary(self.d.writes.counts, self.d.writes.nanoseconds),
        }
        return counters

    def metadata_size(self):
        return device_metadata_bytes(&self.d)

    # --- what its owner does with it ---

    def use_remote(self, remote):
        if remote is None:
            copies_stop(&self.d)
            return
        if self.remote is not None and remote is not self.remote:
            raise ValueError("a device has one remote tier in its life")
        self.check_attached()
        # Kept for good: who is in flight may be at it.
        self.remote = remote
        cdef bytes identity = os.urandom(REMOTE_DEVICE_BYTES)
        cdef object capsule = remote.handle()
        cdef remote_handle *handle = <remote_handle *>PyCapsule_GetPointer(capsule, REMOTE_CAPSULE)
        if copies_use(&self.d, handle.ops, handle.remote, identity):
            raise MemoryError()

    def connect(self):
        return Connection(self)

    def pull(self, uint64_t life, uint64_t taker):
        if not life:
            raise ValueError("whoever pulls names a life")
        cdef Connection connection = Connection(self)
        connection.is_writable = False
        connection_pull(&connection.c, life, taker)
        return connection

    cdef int mark(self) except 1:
        with self.mark_lock:
            if not device_is_marked(&self.d):
                self.on_mark()
                device_set_marked(&self.d, True)
        return 0

    def ensure_marked(self):
        self.mark()

    cdef int take(self) except 1:
        with self.mark_lock:
            if device_guest(&self.d) == GUEST_COMING:
                if self.on_take is None:
                    raise OSError(EIO, os.strerror(EIO))
                self.on_take()
                device_set_marked(&self.d, True)
                device_set_guest(&self.d, GUEST_HERE, 0)
        return 0

    cdef int fetch(self, uint64_t first, uint32_t pages, uint8_t *to) except 1:
        if self.on_fetch is None:
            raise OSError(EIO, os.strerror(EIO))
        cdef const uint8_t[::1] found = self.on_fetch(first, pages)
        if found.shape[0] != pages * PAGE_BYTES:
            raise OSError(EIO, os.strerror(EIO))
        memcpy(to, &found[0], found.shape[0])
        return 0

    def note_marked(self):
        device_set_marked(&self.d, True)

    @property
    def guest(self):
        return GUESTS[device_guest(&self.d)]

    def set_guest(self, str where not None, uint64_t taker=0):
        device_set_guest(&self.d, GUESTS.index(where), taker)

    @property
    def life(self):
        return self.d.life

    @life.setter
    def life(self, uint64_t life):
        device_set_life(&self.d, life)

    def renew(self, *, bint pending):
        self.check_attached()
        with nogil:
            device_renew(&self.d, PENDING if pending else UNKNOWN)

    def keep(self, uint64_t first, const uint8_t[::1] content not None):
        cdef uint64_t pages = content.shape[0] // PAGE_BYTES
        cdef int err
        self.check_range(first, pages)
        if not pages:
            return
        cdef const uint8_t *at = &content[0]
        with nogil:
            err = owner_keep(&self.d, first, pages, at)
        self.check(err)

    def take_states(self, uint64_t first, const uint8_t[::1] states not None):
        cdef uint64_t pages = states.shape[0]
        cdef int err
        self.check_range(first, pages)
        if not pages:
            return
        cdef const uint8_t *at = &states[0]
        with nogil:
            err = owner_take_states(&self.d, first, pages, at)
        self.check(err)

    def give_up(self):
        cdef int err
        with nogil:
            err = owner_give_up(&self.d)
        self.check(err)

    cdef int check_range(self, uint64_t first, uint64_t pages) except -1:
        if first > self.d.pages or pages > self.d.pages - first:
            raise ValueError("no such page")
        return 0

    def unmark(self):
        device_set_marked(&self.d, False)

    cdef int check(self, int err) except -1:
        if err == -ESHUTDOWN:
            raise OSError(-err, f"the device {self.name} is being removed")
        if err < 0:
            raise OSError(-err, os.strerror(-err))
        return 0

    cdef int check_attached(self) except -1:
        if not self.is_attached:
            raise ValueError(f"the device {self.name} is closed")
        return 0

    def reserve_index(self):
        cdef int err
        self.check_attached()
        with nogil:
            err = device_reserve_index(&self.d)
        if err:
            raise MemoryError("no memory for the device's index")

    def write_page_zero(self, const uint8_t[::1] page not None):
        cdef int err
        if page.shape[0] != PAGE_BYTES:
            raise ValueError(f"a page is {PAGE_BYTES} bytes")
        cdef const uint8_t *first = &page[0]
        with nogil:
            err = owner_write_page_zero(&self.d, first)
        self.check(err)

    def writeback_idle(self, uint64_t extent, double seconds,
                       uint64_t most=EXTENT_PAGES_OF_DEVICE):
        cdef writeback w
        cdef int err
        if extent * EXTENT_PAGES_OF_DEVICE >= self.d.pages:
            raise ValueError("no such extent")
        with nogil:
            err = owner_writeback(&self.d, extent, seconds, most, &w)
        self.check(err)
        return w.moved, w.lost, -w.err

    def writeback(self, uint64_t extent, uint64_t most=EXTENT_PAGES_OF_DEVICE):
        return self.writeback_idle(extent, 0.0, most)

    def writeback_next_idle(self, uint64_t page, double seconds,
                            uint64_t most=EXTENT_PAGES_OF_DEVICE):
        cdef writeback w
        cdef int err
        with nogil:
            err = owner_writeback_idle(&self.d, &page, seconds, most, &w)
        self.check(err)
        return page, w.moved, -w.err

    def writeback_next_heavy(self, uint64_t page, uint8_t least, uint8_t beside,
                             uint64_t most=EXTENT_PAGES_OF_DEVICE):
        cdef heavy chosen = heavy(least, beside, max(<uint64_t>1, most))
        cdef writeback w
        cdef int err
        with nogil:
            err = owner_writeback_heavy(&self.d, &page, &chosen, &w)
        self.check(err)
        return page, w.moved, -w.err

    def weigh(self, unsigned short since):
        cdef uint64_t pages[WEIGHT_STEPS]
        cdef int err
        memset(pages, 0, sizeof(pages))
        with nogil:
            err = owner_weigh(&self.d, since, pages)
        self.check(err)
        return [pages[i] for i in range(WEIGHT_STEPS)]

    def ages(self, seconds):
        cdef older found[AGES_AT_ONCE]
        cdef size_t n = len(seconds)
        cdef int err
        if n > AGES_AT_ONCE:
            raise ValueError(f"at most {AGES_AT_ONCE} ages")
        for i in range(n):
            found[i] = older(seconds[i], 0, 0)
        with nogil:
            err = owner_ages(&self.d, found, n)
        self.check(err)
        return [(found[i].pages, found[i].bytes) for i in range(n)]

    def idle_pages(self):
        cdef uint64_t pages[REUSE_STEPS]
        cdef int err
        memset(pages, 0, sizeof(pages))
        with nogil:
            err = owner_idle_pages(&self.d, pages)
        self.check(err)
        return [pages[i] for i in range(REUSE_STEPS)]

    def reads(self):
        cdef distances sum
        cdef int err
        memset(&sum, 0, sizeof(sum))
        with nogil:
            err = owner_reads(&self.d, &sum)
        self.check(err)
        return (
            [sum.pool[i] for i in range(DISTANCE_STEPS)],
            [sum.least[i] for i in range(DISTANCE_STEPS)],
            [sum.most[i] for i in range(DISTANCE_STEPS)],
            sum.unseen,
            sum.samples,
        )

    def renumber(self):
        cdef int err
        with nogil:
            err = owner_renumber(&self.d)
        self.check(err)

    def forget_left(self):
        cdef int err
        with nogil:
            err = owner_forget_left(&self.d)
        self.check(err)

    def coldest(self):
        cdef Extents extents = Extents()
        cdef int err
        extents.found = <aged *>calloc(self.d.pages // EXTENT_PAGES_OF_DEVICE + 1, sizeof(aged))
        if extents.found == NULL:
            raise MemoryError()
        with nogil:
            err = owner_coldest(&self.d, extents.found, &extents.n)
        self.check(err)
        return extents

    def forget(self):
        cdef int err
        with nogil:
            err = owner_forget(&self.d)
        self.check(err)

    def make_known(self):
        cdef int64_t made
        with nogil:
            made = owner_make_known(&self.d)
        self.check(<int>min(made, 0))
        return made

    def settle(self):
        cdef int err
        with nogil:
            err = owner_settle(&self.d)
        self.check(err)

    def recompress(self, str codec not None, uint64_t first, *, double since, double before,
                   uint64_t nanoseconds):
        cdef recompress r
        cdef int err
        r.compress = <tmem_compress>compress_number(codec)
        r.next, r.since, r.before, r.budget = first, since, before, nanoseconds
        with nogil:
            err = owner_recompress(&self.d, &r)
        self.check(err)
        return r.next, r.recompressed, r.no_room, r.worked, r.took

    def read_contents(self, uint64_t page, bint zone, uint8_t[::1] space not None,
                      uint8_t[::1] packed=None):
        cdef contents c
        cdef int err
        contents_in(space, &c)
        if packed is not None:
            if packed.shape[0] < CONTENTS_PACKED:
                raise ValueError(f"packed contents need {CONTENTS_PACKED} bytes")
            c.packed_space = &packed[0]
        with nogil:
            err = owner_read_contents(&self.d, &page, zone, &c)
        self.check(err)
        return page, c.first, c.pages, c.bytes, c.zeros, c.lost, c.packed, c.packed_length

    def write_contents(self, uint64_t first, bint zone, uint8_t[::1] space not None,
                       uint64_t length):
        cdef contents c
        cdef int err
        contents_in(space, &c)
        c.first, c.pages = first, extent_pages(&self.d, first)
        with nogil:
            err = owner_write_contents(&self.d, zone, &c, length)
        if err == -EINVAL:
            raise ValueError("its pages do not fit")
        self.check(err)
        return c.bytes, c.zeros

    def write_packed(self, uint64_t first, uint8_t[::1] space not None,
                     const uint8_t[::1] packed not None):
        cdef contents c
        cdef int err
        contents_in(space, &c)
        c.first, c.pages = first, extent_pages(&self.d, first)
        if not 0 < packed.shape[0] <= CONTENTS_PACKED:
            raise ValueError("its pages do not fit")
        # It is read only.
        c.packed_space, c.packed_length = <uint8_t *>&packed[0], <uint32_t>packed.shape[0]
        with nogil:
            err = owner_write_packed(&self.d, &c)
        if err == -EINVAL:
            raise ValueError("its pages do not fit")
        self.check(err)
        return c.packed

    def extent_pages(self, uint64_t first):
        return extent_pages(&self.d, first)

    def clear_zone(self):
        cdef int err
        with nogil:
            err = owner_clear_zone(&self.d)
        self.check(err)

    def shut(self):
        return flights_shut(&self.d.flights)

    def unshut(self):
        flights_unshut(&self.d.flights)

    def mend(self):
        cdef int64_t lost
        with nogil:
            lost = owner_mend(&self.d)
        if lost == -ENOENT:
            return None
        self.check(<int>min(lost, 0))
        return lost

    def punch(self):
        cdef int err
        with nogil:
            err = owner_punch(&self.d)
        self.check(err)

    def punch_unused(self):
        cdef int err
        with nogil:
            err = owner_punch_unused(&self.d)
        self.check(err)

    def stop(self):
        with nogil:
            flights_close(&self.d.flights)

    @property
    def is_stopped(self):
        return flights_are_closed(&self.d.flights)

    def empty(self):
        cdef int err
        self.check_attached()
        with nogil:
            err = device_empty(&self.d)
        if err == -EBUSY:
            raise ValueError(f"the device {self.name} is still served")

    def park(self, unsigned milliseconds):
        cdef bint ended
        with nogil:
            ended = flights_park(&self.d.flights, milliseconds)
        return ended

    def resume(self):
        flights_resume(&self.d.flights)

    def sync(self):
        cdef int err
        self.check_attached()
        if self.d.disk.sync_failed:
            raise OSError(EIO, "an earlier sync of its disk file failed")
        with nogil:
            err = disk_sync_all(&self.d.disk)
        if err:
            raise OSError(-err, os.strerror(-err))


cdef class Connection(Export):
    """One client of a device."""

    def __init__(self, Device device not None):
        if self.device is not None:
            raise ValueError("a connection is opened once")
        self.name, self.size, self.is_writable = device.name, device.size, True
        cdef int err = connection_open(&self.c, &device.d)
        if err:
            raise OSError(-err, f"{device.name} is shut to clients")
        self.device = device
        self.is_open = True

    def close(self):
        if self.is_open:
            self.is_open = False
            connection_close(&self.c)

    def __dealloc__(self):
        if self.is_open and self.device is not None:
            connection_close(&self.c)

    # A first try with the interpreter lock, and what would wait in it goes on without.

    cdef int read(self, buf, uint64_t offset) except 1:
        cdef Py_buffer view
        cdef transfer t
        cdef int err
        PyObject_GetBuffer(buf, &view, PyBUF_WRITABLE)
        err = connection_try_read(&self.c, &t, view.buf, <uint64_t>view.len, offset)
        if err == -EAGAIN:
            with nogil:
                err = connection_read(&self.c, &t, view.buf, <uint64_t>view.len, offset)
        PyBuffer_Release(&view)
        return err

    cdef int write(self, buf, uint64_t offset, unsigned flags) except 1:
        cdef Py_buffer view
        cdef transfer t
        cdef int err
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        err = connection_try_write(&self.c, &t, view.buf, <uint64_t>view.len, offset, flags)
        if err == -EAGAIN:
            with nogil:
                err = connection_write(&self.c, &t, view.buf, <uint64_t>view.len, offset, flags)
        PyBuffer_Release(&view)
        return err

    cdef int sync(self) noexcept:
        cdef int err
        with nogil:
            err = connection_flush(&self.c)
        return err

    cdef int discard(self, uint64_t count, uint64_t offset, unsigned flags) noexcept:
        cdef int err
        with nogil:
            err = connection_trim(&self.c, count, offset, flags)
        return err

    cdef int clear(self, uint64_t count, uint64_t offset, unsigned flags) noexcept:
        cdef int err
        with nogil:
            err = connection_zero(&self.c, count, offset, flags)
        return err

    cdef int list_extents(self, uint64_t count, uint64_t offset, nbd_extent *to,
                          unsigned most) noexcept:
        cdef int n
        with nogil:
            n = connection_extents(&self.c, count, offset, to, most)
        return n
