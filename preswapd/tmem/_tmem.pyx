# cython: language_level=3, binding=True
# SPDX-License-Identifier: BSD-3-Clause
"""The tmem host as Python sees it: ownership, errors and the GIL; the work is in the C files."""

import errno
import os

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from preswapd.codecs import COMPRESS
from preswapd.errors import PageDamagedError, RefusedError
from preswapd.units import PAGE_SIZE


cdef extern from "tmem.h" nogil:
    enum:
        TMEM_PERSISTENT
        TMEM_SHARED
        TMEM_EXCLUSIVE_GETS
    ctypedef struct tmem_stats "struct tmem_stats":
        uint64_t mem_limit, mem_used_total, mem_used_max, metadata_size
        uint64_t stored_pages, same_filled_pages, huge_pages, compr_data_size, live_slot_bytes
        uint64_t staged_pages
        uint64_t ephemeral_pages, ephemeral_bytes, evicted_pages
        uint64_t puts, good_puts, no_mem_puts, dup_puts_replaced, dup_puts_flushed
        uint64_t gets, found_gets, flushes, flushes_found
        uint64_t pool_limit_hit, reject_alloc_fail, checksum_errors, moved_pages
        uint64_t recompressed_pages, recompress_saved

    ctypedef struct tmem_pool_stats "struct tmem_pool_stats":
        uint64_t pages, bytes, evicted, evicted_by_itself

    const tmem_ops_t tmem_ops_table "tmem_ops"
    int tmem_create(const char *path, const char *boot_id, tmem_host **host)
    int tmem_open(const char *path, tmem_host **host, char *why, size_t why_size)
    int tmem_recover(tmem_host *, tmem_keep, void *ctx, tmem_recovery *)
    void tmem_close(tmem_host *)
    const char *tmem_boot_id(const tmem_host *)
    const uint8_t *tmem_uuid(const tmem_host *)
    uint8_t *tmem_table(tmem_host *)
    int tmem_table_reserve(tmem_host *, size_t bytes)
    size_t tmem_table_reserved(const tmem_host *)
    void tmem_set_limit(tmem_host *, uint64_t)
    void tmem_set_cap(tmem_host *, uint64_t)
    uint64_t tmem_owed(tmem_host *)
    void tmem_set_spare(tmem_host *, uint64_t)
    int64_t tmem_lacking(tmem_host *)
    int64_t tmem_wait_lacking(tmem_host *, unsigned)
    void tmem_wake(tmem_host *)
    void tmem_compact(tmem_host *)
    uint64_t tmem_largest_limit(const tmem_host *)
    void tmem_set_headroom(tmem_host *, uint64_t, uint64_t, const int (*)[4], size_t)
    void tmem_set_aside(tmem_host *, uint64_t)
    uint64_t tmem_room(tmem_host *, int *limiter)
    int tmem_new_pool(tmem_host *, const uint8_t *, uint32_t)
    int64_t tmem_destroy_pool(tmem_host *, uint32_t)
    int tmem_freeze(tmem_host *, uint32_t, cbool)
    int tmem_set_max_pages(tmem_host *, uint32_t, uint64_t)
    int tmem_set_max_bytes(tmem_host *, uint32_t, uint64_t)
    cbool tmem_pool_exists(const tmem_host *, uint32_t)
    int tmem_get_pool_stats(const tmem_host *, uint32_t, tmem_pool_stats *)
    int tmem_put(tmem_host *, const tmem_handle *, const void *, tmem_compress, cbool)
    int tmem_get(tmem_host *, const tmem_handle *, void *)
    int tmem_flush(tmem_host *, const tmem_handle *)
    int64_t tmem_flush_object(tmem_host *, uint32_t, uint64_t)
    int tmem_recompress(tmem_host *, const tmem_handle *, tmem_compress)
    void tmem_give_back(tmem_host *)
    void tmem_make_spare(tmem_host *)
    uint64_t tmem_evict_all(tmem_host *)
    void tmem_maintain(tmem_host *, cbool)
    cbool tmem_pack(tmem_host *)
    void tmem_set_staging(tmem_host *, cbool)
    void tmem_settle(tmem_host *, unsigned)
    void tmem_get_stats(tmem_host *, tmem_stats *)


PERSISTENT, SHARED, EXCLUSIVE_GETS = TMEM_PERSISTENT, TMEM_SHARED, TMEM_EXCLUSIVE_GETS


cpdef int compress_number(str name) except -1:
    """Position in COMPRESS, which is the C enum's order."""
    if name not in COMPRESS:
        raise ValueError(f"compress must be one of {', '.join(COMPRESS)}, not {name!r}")
    return COMPRESS.index(name)


cdef class Host:
    """One arena file and the pools in it."""

    def __cinit__(self):
        self.host = NULL
        self.ready = False

    def __init__(self, path, uint64_t limit, *, bint create, str boot_id="",
                 uint64_t host_reserve=0, uint64_t shm_reserve=0, cgroup_files=()):
        cdef char why[200]
        cdef int err
        self.path = os.fspath(path)
        name = os.fsencode(self.path)
        cdef const char *cname = name
        boot = boot_id.encode()
        cdef const char *cboot = boot
        if self.host != NULL:
            raise ValueError("a host is opened once")
        if create:
            if os.path.lexists(self.path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)
            with nogil:
                err = tmem_create(cname, cboot, &self.host)
            if err < 0:
                raise OSError(-err, os.strerror(-err), self.path)
        else:
            with nogil:
                err = tmem_open(cname, &self.host, why, sizeof(why))
            if err == -errno.ENOENT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
            if err < 0:
                raise RefusedError(f"the arena {self.path} cannot be used: {why.decode()}")
        self.ready = create
        self.limit = limit
        self._watch(host_reserve, shm_reserve, cgroup_files)

    def _watch(self, uint64_t host_reserve, uint64_t shm_reserve, cgroup_files):
        cdef int fds[16][4]
        cdef size_t n = 0
        self.cgroups = []
        for paths in list(cgroup_files)[:16]:
            opened = []
            try:
                for p in paths:
                    opened.append(-1 if p is None else os.open(p, os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                for fd in opened:
                    if fd >= 0:
                        os.close(fd)
                continue
            for i in range(4):
                fds[n][i] = opened[i]
            n += 1
            self.cgroups.append(paths[0])
        tmem_set_headroom(self.host, host_reserve, shm_reserve, fds, n)

    def room(self):
        cdef int limiter
        cdef uint64_t room
        cdef tmem_host *host = self.pointer()
        with nogil:
            room = tmem_room(host, &limiter)
        return room, None if limiter < 0 else self.cgroups[limiter]

    def set_aside(self, uint64_t size):
        cdef tmem_host *host = self.pointer()
        with nogil:
            tmem_set_aside(host, size)

    def owed(self):
        cdef uint64_t owed
        cdef tmem_host *host = self.pointer()
        with nogil:
            owed = tmem_owed(host)
        return owed

    def set_cap(self, size):
        cdef uint64_t cap = ~<uint64_t>0 if size is None else size
        tmem_set_cap(self.pointer(), cap)

    @property
    def largest_limit(self):
        return tmem_largest_limit(self.pointer())

    def __dealloc__(self):
        if self.host != NULL:
            tmem_close(self.host)
            self.host = NULL

    def close(self):
        if self.host != NULL:
            tmem_close(self.host)
            self.host = NULL

    cdef tmem_host *pointer(self) except NULL:
        if self.host == NULL:
            raise ValueError("the host is closed")
        return self.host

    cdef const tmem_ops_t *ops(self) noexcept:
        return &tmem_ops_table

    @property
    def boot_id(self):
        return tmem_boot_id(self.pointer()).decode()

    @property
    def uuid(self):
        return (<const char *>tmem_uuid(self.pointer()))[:16].hex()

    @property
    def limit(self):
        cdef tmem_stats s
        tmem_get_stats(self.pointer(), &s)
        return s.mem_limit

    @limit.setter
    def limit(self, uint64_t limit):
        tmem_set_limit(self.pointer(), limit)

    cdef uint8_t *table(self) except NULL:
        return tmem_table(self.pointer())

    def table_reserve(self, size_t size):
        cdef int err = tmem_table_reserve(self.pointer(), size)
        if err < 0:
            raise OSError(-err, os.strerror(-err), self.path)

    def table_reserved(self):
        return tmem_table_reserved(self.pointer())

    cdef object recover_with(self, tmem_keep keep, void *ctx):
        cdef tmem_recovery found
        cdef tmem_host *host = self.pointer()
        cdef int err
        if self.ready:
            raise ValueError("an arena is recovered once, after it was opened")
        with nogil:
            err = tmem_recover(host, keep, ctx, &found)
        if err == -errno.ENOMEM:
            raise RefusedError(f"the pages in {self.path} need an index in memory, and "
                               f"{self.room()[1] or 'this host'} has none left: give it more")
        if err < 0:
            raise OSError(-err, os.strerror(-err), self.path)
        self.ready = True
        return dict(found)

    def recover(self):
        return self.recover_with(NULL, NULL)

    def new_pool(self, bytes uuid=bytes(16), uint32_t flags=PERSISTENT):
        if len(uuid) != 16:
            raise ValueError("a pool's uuid is 16 bytes")
        self.check_ready()
        cdef tmem_host *host = self.pointer()
        cdef const uint8_t *u = uuid
        cdef int pool
        with nogil:            # another thread may be dropping a pool's pages
            pool = tmem_new_pool(host, u, flags)
        if pool == -errno.EINVAL:
            raise ValueError(f"a pool's flags are not {flags:#x}, and a shared one needs a uuid")
        if pool == -errno.EEXIST:
            raise ValueError("the shared pool with this uuid has other flags")
        if pool < 0:
            raise OSError(-pool, "no room for another pool")
        return pool

    def has_pool(self, uint32_t pool):
        return tmem_pool_exists(self.pointer(), pool)

    def pool_stats(self, pool):
        cdef tmem_pool_stats s
        self.check_pool(pool)
        if tmem_get_pool_stats(self.host, pool, &s) < 0:
            raise KeyError(f"no pool {pool}")
        return dict(s)

    cdef int check_pool(self, pool) except -1:
        if not 0 <= pool < 1 << 32 or not tmem_pool_exists(self.pointer(), pool):
            raise KeyError(f"no pool {pool}")
        return 0

    cdef int check_ready(self) except -1:
        if not self.ready:
            raise ValueError("the arena must be recovered first")
        return 0

    def destroy_pool(self, pool):
        cdef int64_t dropped
        self.check_pool(pool)
        self.check_ready()
        cdef uint32_t p = pool
        with nogil:
            dropped = tmem_destroy_pool(self.host, p)
        if dropped < 0:        # another thread was faster
            raise KeyError(f"no pool {pool}")
        return dropped

    def freeze(self, pool, bint frozen):
        self.check_pool(pool)
        tmem_freeze(self.host, pool, frozen)

    def set_max_pages(self, pool, uint64_t pages):
        self.check_pool(pool)
        tmem_set_max_pages(self.host, pool, pages)

    def set_max_bytes(self, pool, uint64_t size):
        cdef int err
        self.check_pool(pool)
        cdef uint32_t p = pool
        with nogil:
            err = tmem_set_max_bytes(self.host, p, size)
        if err < 0:
            raise ValueError("only an ephemeral pool has a limit of its own in bytes")

    cdef bint handle(self, pool, object, index, tmem_handle *to) except -1:
        """False for an index over 32 bits: a page there is neither stored nor found."""
        self.check_pool(pool)
        self.check_ready()
        if not 0 <= object < 1 << 64 or index < 0:
            raise ValueError("an object is a 64-bit number, an index a 32-bit number")
        if index >> 32:
            return False
        to.pool, to.object, to.index = pool, object, index
        return True

    def put_page(self, pool, object, index, const uint8_t[::1] page not None, *,
                 str compress="lz4", bint keep_old=False):
        cdef tmem_handle h
        cdef int done, number = compress_number(compress)
        if page.shape[0] != PAGE_SIZE:
            raise ValueError("a page is 4096 bytes")
        if not self.handle(pool, object, index, &h):
            return False
        cdef const uint8_t *bytes_of_page = &page[0]
        with nogil:
            done = tmem_put(self.host, &h, bytes_of_page, <tmem_compress>number, keep_old)
        return done == 1

    def get_page(self, pool, object, index, uint8_t[::1] into not None):
        cdef tmem_handle h
        cdef int found
        if into.shape[0] != PAGE_SIZE:
            raise ValueError("a page is 4096 bytes")
        if not self.handle(pool, object, index, &h):
            return False
        cdef uint8_t *bytes_of_page = &into[0]
        with nogil:
            found = tmem_get(self.host, &h, bytes_of_page)
        if found == -errno.EIO:
            raise PageDamagedError(
                f"the stored page {index} of object {object} in pool {pool} is damaged")
        if found < 0:
            raise OSError(-found, os.strerror(-found))
        return found == 1

    def flush_page(self, pool, object, index):
        cdef tmem_handle h
        cdef int found
        if not self.handle(pool, object, index, &h):
            return False
        with nogil:
            found = tmem_flush(self.host, &h)
        return found == 1

    def flush_object(self, pool, object):
        cdef tmem_handle h
        cdef int64_t dropped
        self.handle(pool, object, 0, &h)
        with nogil:
            dropped = tmem_flush_object(self.host, h.pool, h.object)
        return dropped

    def recompress_page(self, pool, object, index, str compress not None):
        cdef tmem_handle h
        cdef int done, number = compress_number(compress)
        if not self.handle(pool, object, index, &h):
            return False
        with nogil:
            done = tmem_recompress(self.host, &h, <tmem_compress>number)
        return done == 1

    def give_back(self):
        cdef tmem_host *host = self.pointer()
        with nogil:
            tmem_give_back(host)

    def set_spare(self, uint64_t size):
        tmem_set_spare(self.pointer(), size)

    def lacking(self, unsigned milliseconds=0):
        cdef tmem_host *host = self.pointer()
        cdef int64_t size
        with nogil:
            size = tmem_wait_lacking(host, milliseconds) if milliseconds else tmem_lacking(host)
        return size

    def wake(self):
        tmem_wake(self.pointer())

    def compact(self):
        cdef tmem_host *host = self.pointer()
        with nogil:
            tmem_compact(host)

    def make_spare(self):
        cdef tmem_host *host = self.pointer()
        with nogil:
            tmem_make_spare(host)

    def evict_all(self):
        cdef tmem_host *host = self.pointer()
        cdef uint64_t evicted
        with nogil:
            evicted = tmem_evict_all(host)
        return evicted

    def maintain(self, bint all=False):
        cdef tmem_host *host = self.pointer()
        with nogil:
            tmem_maintain(host, all)

    def pack(self):
        cdef tmem_host *host = self.pointer()
        cdef bint more
        with nogil:
            more = tmem_pack(host)
        return more

    def set_staging(self, bint on):
        tmem_set_staging(self.pointer(), on)

    def settle(self, unsigned milliseconds=0):
        cdef tmem_host *host = self.pointer()
        with nogil:
            tmem_settle(host, milliseconds)

    def stats(self):
        cdef tmem_stats s
        tmem_get_stats(self.pointer(), &s)
        counters = dict(s)
        counters["orig_data_size"] = PAGE_SIZE * counters["stored_pages"]
        return counters
