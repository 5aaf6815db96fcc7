# cython: language_level=3
# SPDX-License-Identifier: BSD-3-Clause
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from preswapd.block._export cimport Connection as Export
from preswapd.block._export cimport nbd_extent
from preswapd.tmem._tmem cimport Host, cbool, tmem_compress, tmem_host, tmem_ops_t


cdef extern from "page_size.h" nogil:
    enum:
        PAGE_BYTES

cdef extern from "marks.h" nogil:
    ctypedef struct marks "struct marks":
        pass
    void marks_init(marks *)
    void marks_destroy(marks *)

cdef extern from "disk.h" nogil:
    ctypedef struct disk "struct disk":
        int fd
        cbool sync_failed
    void disk_init(disk *)
    void disk_destroy(disk *)
    void disk_attach(disk *, int, uint64_t)
    int disk_sync_all(disk *)

cdef extern from "flights.h" nogil:
    ctypedef struct flights "struct flights":
        uint64_t connections
    cbool flights_shut(flights *)
    void flights_unshut(flights *)
    void flights_init(flights *)
    void flights_destroy(flights *)
    double flights_seconds_since_io(const flights *)
    bint flights_are_asked(const flights *)
    uint64_t flights_requests(flights *)
    cbool flights_park(flights *, unsigned)
    void flights_resume(flights *)
    void flights_close(flights *)
    cbool flights_are_closed(flights *)

cdef extern from "zone.h" nogil:
    enum:
        ZONE_MOST
    ctypedef struct zone_range "struct zone_range":
        uint64_t first, end
    ctypedef struct zone "struct zone":
        uint32_t n
        uint64_t low_end, high_first
        zone_range *ranges

cdef extern from "epochs.h" nogil:
    enum:
        REUSE_STEPS
    ctypedef struct epochs "struct epochs":
        uint64_t reused[REUSE_STEPS]
    int epochs_init(epochs *)
    void epochs_destroy(epochs *)
    void epochs_set_turn(epochs *, uint64_t)
    uint16_t epochs_begin(epochs *)
    cbool epochs_are_scarce(const epochs *)
    void epochs_change_over(epochs *)

cdef extern from "sampler.h" nogil:
    enum:
        DISTANCE_STEPS
        SAMPLER_SHIFT
    ctypedef struct distances "struct distances":
        uint64_t pool[DISTANCE_STEPS]
        uint64_t least[DISTANCE_STEPS]
        uint64_t most[DISTANCE_STEPS]
        uint64_t unseen, samples
    ctypedef struct sampler "struct sampler":
        pass
    ctypedef struct sampler_now "struct sampler_state":
        uint64_t one_in, samples, read_again, not_read_again
    int sampler_init(sampler *, uint32_t)
    void sampler_destroy(sampler *)
    void sampler_turn(sampler *)
    void sampler_state(sampler *, sampler_now *)

cdef extern from "promotion.h" nogil:
    const uint64_t PROMOTE_ALL

cdef extern from "weights.h" nogil:
    enum:
        WEIGHT_STEPS
    uint64_t weight_least(uint8_t)

cdef extern from "latency.h" nogil:
    enum:
        LATENCY_BUCKETS
    ctypedef struct latency "struct latency":
        uint64_t counts[LATENCY_BUCKETS]
        uint64_t nanoseconds

cdef extern from "device.h" nogil:
    enum:
        DISK
        UNKNOWN
        PENDING
        GUEST_HERE
        GUEST_COMING
        GUEST_GONE
        EXTENT_PAGES_OF_DEVICE "EXTENT_PAGES"
    ctypedef struct device_counters "struct device_counters":
        uint64_t preswap_pages, disk_pages, lost_pages, unknown_pages, pending_pages
        uint64_t loads, succ_stores, failed_stores, invalidates, lost_reads, unknown_reads
        uint64_t disk_reads, disk_writes, disk_errors, punched_pages
        uint64_t trims, written_back_pages, written_back_room, written_back_idle
        uint64_t refaults, promoted_pages, fetched_pages, remote_reads, fetch_errors
        uint64_t read_requests, write_requests, trim_requests
    ctypedef struct device "struct device":
        const tmem_ops_t *tmem
        tmem_host *host
        uint32_t pool, type
        uint64_t pages
        uint8_t *map
        uint8_t *in_tmem
        uint64_t to_punch_pages
        epochs *epochs
        sampler *sampler
        uint64_t promoted_below
        disk disk
        marks marks
        flights flights
        uint64_t max_pages
        zone zone
        int (*mark)(void *) noexcept nogil
        int (*take)(void *) noexcept nogil
        int (*fetch)(void *, uint64_t, uint32_t, uint8_t *) noexcept nogil
        uint64_t life
        void *owner
        int last_error
        device_counters count
        latency reads
        latency writes
    void device_set_compress(device *, tmem_compress)
    void device_set_max_pages(device *, uint64_t)
    void device_set_promoted_below(device *, uint64_t)
    cbool device_is_marked(const device *)
    void device_set_marked(device *, cbool)
    int device_guest(const device *)
    void device_set_guest(device *, int, uint64_t)
    void device_set_life(device *, uint64_t)
    void device_renew(device *, int)
    uint8_t device_state(const device *, uint64_t)
    int device_map(device *, int)
    void device_release(device *)
    size_t device_metadata_bytes(const device *)
    void device_attach(device *)
    int device_reserve_index(device *)
    int device_empty(device *)

cdef extern from "copies.h" nogil:
    enum:
        REMOTE_DEVICE_BYTES
    const char *REMOTE_CAPSULE
    ctypedef struct remote "struct remote":
        pass
    ctypedef struct remote_ops_t "struct remote_ops":
        pass
    ctypedef struct remote_handle "struct remote_handle":
        const remote_ops_t *ops
        remote *remote
    int copies_use(device *, const remote_ops_t *, remote *, const uint8_t *)
    void copies_stop(device *)

cdef extern from "owner.h" nogil:
    ctypedef struct writeback "struct writeback":
        uint64_t moved, lost
        int err
    ctypedef struct recompress "struct recompress":
        tmem_compress compress
        double since, before
        uint64_t budget, next
        uint64_t recompressed, no_room
        uint64_t worked, took
    ctypedef struct aged "struct aged":
        double touches, seq
        uint64_t pages, extent
    ctypedef struct heavy "struct heavy":
        uint8_t least, beside
        uint64_t most
    ctypedef struct older "struct older":
        double seconds
        uint64_t pages, bytes
    enum:
        CONTENTS_SPACE, CONTENTS_PACKED
    ctypedef struct contents "struct contents":
        uint64_t first
        uint32_t pages, bytes, zeros, lost, packed, packed_length
        uint8_t *space
        uint8_t *packed_space
    int owner_read_contents(device *, uint64_t *, cbool, contents *)
    int owner_write_contents(device *, cbool, contents *, uint64_t)
    int owner_write_packed(device *, contents *)
    int owner_clear_zone(device *)
    int owner_write_page_zero(device *, const uint8_t *)
    int owner_writeback(device *, uint64_t, double, uint64_t, writeback *)
    int owner_coldest(device *, aged *, size_t *)
    int owner_writeback_idle(device *, uint64_t *, double, uint64_t, writeback *)
    int owner_writeback_heavy(device *, uint64_t *, const heavy *, writeback *)
    int owner_weigh(device *, uint16_t, uint64_t *)
    int owner_ages(device *, older *, size_t)
    int owner_idle_pages(device *, uint64_t *)
    int owner_reads(device *, distances *)
    int owner_renumber(device *)
    int owner_forget_left(device *)
    int owner_forget(device *)
    int64_t owner_make_known(device *)
    int owner_keep(device *, uint64_t, uint64_t, const uint8_t *)
    int owner_take_states(device *, uint64_t, uint64_t, const uint8_t *)
    int owner_give_up(device *)
    int owner_settle(device *)
    int owner_recompress(device *, recompress *)
    int64_t owner_mend(device *)
    int owner_punch(device *)
    int owner_punch_unused(device *)

cdef extern from "connection.h" nogil:
    ctypedef struct connection "struct connection":
        pass
    ctypedef struct transfer "struct transfer":
        pass
    int connection_open(connection *, device *)
    void connection_pull(connection *, uint64_t, uint64_t)
    void connection_close(connection *)
    int connection_try_read(connection *, transfer *, void *, uint64_t, uint64_t)
    int connection_read(connection *, transfer *, void *, uint64_t, uint64_t)
    int connection_try_write(connection *, transfer *, const void *, uint64_t, uint64_t, unsigned)
    int connection_write(connection *, transfer *, const void *, uint64_t, uint64_t, unsigned)
    int connection_flush(connection *)
    int connection_trim(connection *, uint64_t, uint64_t, unsigned)
    int connection_zero(connection *, uint64_t, uint64_t, unsigned)
    int connection_extents(connection *, uint64_t, uint64_t, nbd_extent *, unsigned)


cdef enum:
    AGES_AT_ONCE = 32


cdef class Epochs:
    cdef epochs e
    cdef bint is_ready


cdef class Sampler:
    cdef sampler s
    cdef bint is_ready


cdef class Device:
    cdef device d
    cdef Host host
    cdef Epochs epochs
    cdef Sampler sampler
    cdef readonly str name
    cdef public str configured_compress
    cdef readonly uint64_t size
    cdef readonly object preswap_map
    cdef str codec
    cdef Py_buffer tmem_bits
    cdef object remote
    cdef bint is_attached
    cdef bint is_released
    cdef object on_mark
    cdef object mark_lock
    cdef public object on_take
    cdef public object on_fetch
    cdef int release(self) except -1
    cdef int mark(self) except 1
    cdef int take(self) except 1
    cdef int fetch(self, uint64_t first, uint32_t pages, uint8_t *to) except 1
    cdef int check(self, int err) except -1
    cdef int check_attached(self) except -1
    cdef int check_range(self, uint64_t first, uint64_t pages) except -1


cdef class Connection(Export):
    cdef readonly Device device
    cdef connection c
    cdef bint is_open
