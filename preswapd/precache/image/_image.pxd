# cython: language_level=3
# SPDX-License-Identifier: BSD-3-Clause
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from preswapd.block._export cimport Connection as Export
from preswapd.block._export cimport nbd_extent
from preswapd.tmem._tmem cimport Host, cbool, tmem_compress, tmem_host, tmem_ops_t


cdef extern from "flights.h" nogil:
    ctypedef struct flights "struct flights":
        uint64_t connections
    cbool flights_park(flights *, unsigned)
    void flights_resume(flights *)
    void flights_close(flights *)

cdef extern from "latency.h" nogil:
    enum:
        LATENCY_BUCKETS
    ctypedef struct latency "struct latency":
        uint64_t counts[LATENCY_BUCKETS]
        uint64_t nanoseconds

cdef extern from "file.h" nogil:
    ctypedef struct file "struct file":
        int fd
        uint64_t size
        cbool is_direct, is_file, is_writable
    ctypedef struct identity "struct identity":
        uint64_t device, inode, size
        int64_t mtime_s, mtime_ns, ctime_s, ctime_ns
    int file_attach(file *, int, uint64_t, cbool, cbool)
    int file_look(const file *, identity *)
    uint64_t file_pages(const file *)

cdef extern from "admission.h" nogil:
    ctypedef struct admission "struct admission":
        pass
    int admission_begin(admission *, uint64_t, uint64_t)

cdef extern from "remote.h" nogil:
    const char *SHARE_CAPSULE
    ctypedef struct remote_counters "struct remote_counters":
        uint64_t reads, misses, late, away, wrong
    ctypedef struct share "struct share":
        pass
    ctypedef struct share_ops_t "struct share_ops":
        pass
    ctypedef struct share_handle "struct share_handle":
        const share_ops_t *ops
        share *share

cdef extern from "image.h" nogil:
    const uint32_t NO_POOL
    ctypedef struct image_counters "struct image_counters":
        uint64_t reads, hits, misses, puts, writes
        uint64_t disk_reads, disk_writes, disk_errors
        uint64_t read_requests, write_requests
        uint64_t remote_sets, remote_sets_dropped
    ctypedef struct image "struct image":
        const tmem_ops_t *tmem
        tmem_host *host
        file file
        tmem_compress compress
        uint32_t pool
        cbool is_believed
        admission admission
        flights flights
        int last_error
        image_counters count
        remote_counters remote
        share *share
        latency read_latency, write_latency
    void image_init(image *)
    void image_destroy(image *)
    void image_believe(image *, uint32_t, const identity *)
    void image_share(image *, const share_ops_t *, share *)
    cbool image_is_cached(image *)

cdef extern from "client.h" nogil:
    ctypedef struct client "struct client":
        pass
    void client_open(client *, image *)
    void client_close(client *)
    int client_read(client *, void *, uint64_t, uint64_t)
    int client_write(client *, const void *, uint64_t, uint64_t, unsigned)
    int client_flush(client *)
    int client_trim(client *, uint64_t, uint64_t, unsigned)
    int client_zero(client *, uint64_t, uint64_t, unsigned)
    int client_extents(client *, uint64_t, uint64_t, nbd_extent *, unsigned)


cdef class Image:
    cdef image i
    cdef Host host
    cdef object shared
    cdef readonly str name
    cdef readonly uint64_t size
    cdef readonly str compress
    cdef bint is_open
    cdef int release(self) except -1


cdef class Connection(Export):
    cdef readonly Image image
    cdef client c
    cdef bint is_open
