# cython: language_level=3
# SPDX-License-Identifier: BSD-3-Clause
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "tmem.h" nogil:
    """
    #include <stdbool.h>
    """
    ctypedef bint cbool "bool"
    ctypedef struct tmem_host "struct tmem_host":
        pass
    ctypedef struct tmem_handle "struct tmem_handle":
        uint64_t object
        uint32_t index
        uint32_t pool
    ctypedef struct tmem_recovery "struct tmem_recovery":
        uint64_t stored_pages, losers, damaged_slots, damaged_slabs, dropped_pages
    ctypedef cbool (*tmem_keep)(void *ctx, const tmem_handle *handle) noexcept nogil
    ctypedef int tmem_compress "enum tmem_compress"
    ctypedef struct tmem_ops_t "struct tmem_ops":
        pass


cpdef int compress_number(str name) except -1


cdef class Host:
    cdef tmem_host *host
    cdef readonly str path
    cdef bint ready    # created or recovered: pages may be put
    cdef list cgroups  # their limits' files
    # For the layer above, which calls the C interface itself and keeps this object alive meanwhile.
    cdef tmem_host *pointer(self) except NULL
    cdef const tmem_ops_t *ops(self) noexcept
    cdef uint8_t *table(self) except NULL
    cdef object recover_with(self, tmem_keep keep, void *ctx)
    cdef int check_ready(self) except -1
    cdef int check_pool(self, pool) except -1
    cdef bint handle(self, pool, object, index, tmem_handle *to) except -1
