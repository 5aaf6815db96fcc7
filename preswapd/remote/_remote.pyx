# cython: language_level=3, binding=False
# SPDX-License-Identifier: BSD-3-Clause
"""The remote tier as Python sees it: who owns its memory, and when the interpreter lock is held.

What it does is in C, see tier.h.
"""

import os

from cpython.pycapsule cimport PyCapsule_New
from libc.errno cimport EBUSY
from libc.stdlib cimport calloc, free

from preswapd.block.latency import summary

KEY_BYTES = SEAL_KEY_BYTES
DIGEST_BYTES = SHARE_DIGEST_BYTES
SUM_BYTES = SHARE_SUM_BYTES


cdef class Remote:
    def __cinit__(self):
        self.r = NULL

    def __init__(self, bytes key not None, double timeout_ms, uint64_t max_bytes, uint64_t ttl_s):
        if self.r != NULL:
            raise ValueError("a remote tier is made once")
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        cdef bytes session = os.urandom(SEAL_SESSION_BYTES)
        cdef remote *r = <remote *>calloc(1, sizeof(remote))
        if r == NULL:
            raise MemoryError()
        if tier_init(r, key, session):
            tier_destroy(r)
            free(r)
            raise MemoryError()
        self.r = r
        self.set_timeout(timeout_ms)
        self.ttl_s = ttl_s
        self.set_max(max_bytes)

    def __dealloc__(self):
        if self.r != NULL:
            with nogil:
                tier_destroy(self.r)
            free(self.r)

    def handle(self):
        self.of_it.ops, self.of_it.remote = &remote_ops, self.r
        return PyCapsule_New(&self.of_it, REMOTE_CAPSULE, NULL)

    # --- its courier ---

    def connect(self, int fd):
        cdef int err
        with nogil:
            err = tier_connect(self.r, fd)
        if err == -EBUSY:
            raise ValueError("it has a courier")
        if err:
            raise OSError(-err, os.strerror(-err))

    def disconnect(self):
        with nogil:
            courier_disconnect(&self.r.courier)

    @property
    def connected(self):
        return bool(courier_is_there(&self.r.courier))

    def serve(self):
        cdef const char *why
        with nogil:
            why = courier_serve(&self.r.courier)
        return (<bytes>why).decode(errors="replace")

    # --- its settings ---

    @property
    def enabled(self):
        return bool(self.r.is_enabled)

    @enabled.setter
    def enabled(self, bint on):
        tier_set_enabled(self.r, on)

    def set_timeout(self, double timeout_ms):
        if not 0 < timeout_ms <= 60_000:
            raise ValueError("a timeout is between 0 and a minute")
        tier_set_timeout(self.r, <uint64_t>(timeout_ms * 1e6))

    def set_max(self, uint64_t max_bytes):
        with nogil:
            versions_set_most(&self.r.versions, max_bytes, self.ttl_s * 1_000_000_000)

    # --- what is known of it ---

    def figures(self):
        cdef uint64_t pages, some_bytes
        with nogil:
            versions_alive(&self.r.versions, &pages, &some_bytes)
        return {
            "remote_reads": self.r.count.reads,
            "remote_misses": self.r.count.misses,
            "remote_late": self.r.count.late,
            "remote_away": self.r.count.away,
            "remote_wrong": self.r.count.wrong,
            "remote_sets": self.r.courier.count.sets,
            "remote_sets_dropped": self.r.courier.count.sets_dropped,
            "remote_sets_refused": self.r.courier.count.sets_refused,
            "remote_pages": pages,
            "remote_bytes": some_bytes,
            "remote_open": int(tier_is_open(self.r)),
        }

    def latency(self):
        return summary(self.r.gets.counts, self.r.gets.nanoseconds)

    def status(self):
        cdef size_t room = 0, there
        cdef uint8_t[::1] space
        cdef uint8_t *to
        while True:
            space = bytearray(room + 1)
            to = &space[0]
            with nogil:
                there = courier_status(&self.r.courier, to, room)
            if there <= room:
                return bytes(space[:there])
            room = there

    @property
    def heard(self):
        return self.r.courier.count.heard

    def tick(self):
        with nogil:
            tier_tick(self.r)


cdef class Share:
    def __cinit__(self):
        self.s = NULL

    def __init__(self, Remote remote not None, bytes key not None, bytes digest not None,
                 int sums, uint64_t sums_at):
        if self.s != NULL:
            raise ValueError("a share is made once")
        if len(key) != KEY_BYTES or len(digest) != DIGEST_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, and a digest {DIGEST_BYTES}")
        cdef share *s = <share *>calloc(1, sizeof(share))
        if s == NULL:
            raise MemoryError()
        if share_init(s, remote.r, key, digest, sums, sums_at):
            share_destroy(s)
            free(s)
            raise MemoryError()
        self.s, self.remote, self.digest = s, remote, digest

    def __dealloc__(self):
        if self.s != NULL:
            share_destroy(self.s)
            free(self.s)

    def handle(self):
        self.of_it.ops, self.of_it.share = &share_ops, self.s
        return PyCapsule_New(&self.of_it, SHARE_CAPSULE, NULL)


def page_sums(const uint8_t[::1] pages not None):
    cdef size_t count = <size_t>pages.shape[0] // PAGE_BYTES, i
    cdef bytearray sums = bytearray(count * SHARE_SUM_BYTES)
    cdef uint8_t *to = sums
    cdef int err = 0
    if not count:
        return b""
    cdef const uint8_t *first = &pages[0]
    with nogil:
        for i in range(count):
            err |= share_sum(first + i * PAGE_BYTES, to + i * SHARE_SUM_BYTES)
    if err:
        raise MemoryError()
    return bytes(sums)


cdef class Digest:
    """SHA-256 by libcrypto, which is here anyhow: hashlib would load more of it."""

    def __cinit__(self):
        self.context = EVP_MD_CTX_new()
        if self.context == NULL or EVP_DigestInit_ex(self.context, EVP_sha256(), NULL) != 1:
            raise MemoryError()

    def __dealloc__(self):
        EVP_MD_CTX_free(self.context)

    def update(self, const uint8_t[::1] data not None):
        cdef size_t n = <size_t>data.shape[0]
        cdef int done
        if not n:
            return
        cdef const uint8_t *first = &data[0]
        with nogil:
            done = EVP_DigestUpdate(self.context, first, n)
        if done != 1:
            raise MemoryError()

    def finish(self):
        cdef uint8_t found[SHARE_DIGEST_BYTES]
        if EVP_DigestFinal_ex(self.context, found, NULL) != 1:
            raise ValueError("a digest is finished once")
        return found[:SHARE_DIGEST_BYTES]
