# cython: language_level=3
# SPDX-License-Identifier: BSD-3-Clause
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from preswapd.tmem._tmem cimport Host


cdef extern from "table.h" nogil:
    ctypedef int table_state "enum table_state"
    ctypedef struct table_entry "struct table_entry":
        uint64_t size
        uint32_t type
        char *name
        uint64_t quarantined
        uint64_t token


cdef class Table:
    cdef readonly Host host
    cdef uint8_t *base(self) except NULL
    cdef table_state read(self, uint32_t number, table_entry *) except <table_state>-1


cdef class Entry:
    cdef readonly Table table
    cdef readonly uint32_t number
    cdef readonly str name
    cdef readonly uint64_t size
    cdef readonly uint32_t type
    cdef readonly str state
    cdef readonly uint64_t token
    cdef readonly bint quarantined
