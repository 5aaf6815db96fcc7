# cython: language_level=3, binding=False
# SPDX-License-Identifier: BSD-3-Clause
"""The blocks of a save, as Python hands them on: see blocks.h."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "blocks.h" nogil:
    ctypedef struct block_head "struct block_head":
        uint32_t kind
        uint32_t length
        uint64_t first
        uint64_t raw
        uint64_t sum
    ctypedef struct ZSTD_CCtx "struct ZSTD_CCtx_s":
        pass
    ctypedef struct ZSTD_DCtx "struct ZSTD_DCtx_s":
        pass
    uint64_t blocks_sum(uint64_t, const block_head *, const void *)
    size_t blocks_bound(size_t)
    size_t blocks_pack(ZSTD_CCtx *, void *, size_t, const void *, size_t)
    int blocks_unpack(ZSTD_DCtx *, void *, size_t, const void *, size_t)

cdef extern from "zstd.h" nogil:
    ZSTD_CCtx *ZSTD_createCCtx()
    size_t ZSTD_freeCCtx(ZSTD_CCtx *)
    ZSTD_DCtx *ZSTD_createDCtx()
    size_t ZSTD_freeDCtx(ZSTD_DCtx *)

HEAD_BYTES = sizeof(block_head)


def bound(size_t raw):
    return blocks_bound(raw)


cdef uint64_t sum_of(const uint8_t[::1] prefix) except? 0:
    """Of what comes before all blocks."""
    cdef block_head h
    h.kind, h.length, h.first, h.raw = 0, <uint32_t>prefix.shape[0], 0, 0
    return blocks_sum(0, &h, &prefix[0])


cdef class Packer:
    cdef ZSTD_CCtx *ctx
    cdef uint64_t sum

    def __cinit__(self, const uint8_t[::1] prefix not None):
        self.sum = sum_of(prefix)
        self.ctx = ZSTD_createCCtx()
        if self.ctx == NULL:
            raise MemoryError()

    def __dealloc__(self):
        ZSTD_freeCCtx(self.ctx)

    def plain(self, uint32_t kind, const uint8_t[::1] payload not None):
        block = PyBytes_FromStringAndSize(NULL, sizeof(block_head) + payload.shape[0])
        cdef uint8_t *to = <uint8_t *>PyBytes_AS_STRING(block)
        memcpy(to + sizeof(block_head), &payload[0], payload.shape[0])
        self.put_head(to, kind, 0, payload.shape[0], 0)
        return block

    def packed(self, uint32_t kind, uint64_t first, const uint8_t[::1] raw not None,
               uint8_t[::1] room not None):
        cdef size_t length
        cdef uint8_t *to = &room[0]
        cdef const uint8_t *source = &raw[0]
        with nogil:
            length = blocks_pack(self.ctx, to + sizeof(block_head),
                                 room.shape[0] - sizeof(block_head), source, raw.shape[0])
            if length:
                self.put_head(to, kind, first, length, raw.shape[0])
        if not length:
            raise MemoryError()
        return sizeof(block_head) + length

    def stored(self, uint32_t kind, uint64_t first, uint64_t raw, uint8_t[::1] room not None,
               uint32_t length):
        if not 0 < length <= room.shape[0] - <Py_ssize_t>sizeof(block_head):
            raise ValueError("a payload of another length")
        cdef uint8_t *to = &room[0]
        with nogil:
            self.put_head(to, kind, first, length, raw)
        return sizeof(block_head) + length

    cdef void put_head(self, uint8_t *to, uint32_t kind, uint64_t first, size_t length,
                       size_t raw) noexcept nogil:
        cdef block_head h
        h.kind, h.length, h.first, h.raw = kind, <uint32_t>length, first, raw
        self.sum = h.sum = blocks_sum(self.sum, &h, to + sizeof(block_head))
        memcpy(to, &h, sizeof(block_head))


cdef class Unpacker:
    cdef ZSTD_DCtx *ctx
    cdef uint64_t sum

    def __cinit__(self, const uint8_t[::1] prefix not None):
        self.sum = sum_of(prefix)
        self.ctx = ZSTD_createDCtx()
        if self.ctx == NULL:
            raise MemoryError()

    def __dealloc__(self):
        ZSTD_freeDCtx(self.ctx)

    def follows(self, const uint8_t[::1] head not None, const uint8_t[::1] payload not None):
        cdef block_head h
        cdef uint64_t sum
        if head.shape[0] != sizeof(block_head):
            raise ValueError("a head of another length")
        memcpy(&h, &head[0], sizeof(block_head))
        if not payload.shape[0] or h.length != payload.shape[0]:
            return False
        cdef const uint8_t *bytes = &payload[0]
        with nogil:
            sum = blocks_sum(self.sum, &h, bytes)
        if sum != h.sum:
            return False
        self.sum = sum
        return True

    def unpack(self, const uint8_t[::1] payload not None, uint8_t[::1] to not None):
        cdef int err
        cdef uint8_t *into = &to[0]
        cdef const uint8_t *source = &payload[0]
        with nogil:
            err = blocks_unpack(self.ctx, into, to.shape[0], source, payload.shape[0])
        if err:
            raise ValueError("it was packed another way")
