# cython: language_level=3, binding=True
# SPDX-License-Identifier: BSD-3-Clause
"""The arena's table of devices, and the recovery of their pages."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset, strncmp

from preswapd.tmem._tmem cimport Host, cbool, tmem_handle

from preswapd.errors import RefusedError

STATES = ("free", "creating", "served", "removing", "adopting")

cdef extern from "page_size.h" nogil:
    enum:
        PAGE_BYTES

cdef extern from "swizzle.h" nogil:
    uint64_t swizzle_page(uint64_t, uint32_t)
    uint64_t swizzle_type(uint64_t)

cdef extern from "table.h" nogil:
    enum:
        TABLE_NAME_BYTES
        TABLE_FREE
    void table_init(void *)
    cbool table_is_blank(const void *)
    cbool table_head_fits(const void *)
    uint32_t table_draw_type(void *)
    int table_read(const void *, uint32_t, table_entry *, table_state *)
    void table_write(void *, uint32_t, const table_entry *, table_state)
    void table_set_state(void *, uint32_t, table_state)
    void table_lift_quarantine(void *, uint32_t)
    void table_set_token(void *, uint32_t, uint64_t)

cdef enum:
    ENTRY_BYTES = 64


cdef class Entry:
    """A device in the table.  It lives as long as its host is open."""

    def lift_quarantine(self):
        table_lift_quarantine(self.table.base(), self.number)
        self.quarantined = False

    def set_token(self, uint64_t token):
        table_set_token(self.table.base(), self.number, token)
        self.token = token

    def set_state(self, str state):
        table_set_state(self.table.base(), self.number, STATES.index(state))
        self.state = state


cdef class Table:
    """Entries of devices; none is ever moved."""

    def __init__(self, Host host not None):
        self.host = host

    cdef uint8_t *base(self) except NULL:
        return self.host.table()

    def prepare(self):
        """A fresh arena's table gets its head."""
        if self.host.table_reserved() < PAGE_BYTES:
            self.host.table_reserve(PAGE_BYTES)
        if table_is_blank(self.base()):
            table_init(self.base())

    def entries(self, str name=None):
        """Without an object for each entry that is not meant: 511 devices are made one by one, and
        before each of them its name is looked for."""
        cdef uint32_t n = <uint32_t>(self.host.table_reserved() // ENTRY_BYTES), i
        cdef table_entry e
        cdef table_state state
        wanted = None if name is None else name.encode()
        if n == 0 or table_is_blank(self.base()):
            return []
        if not table_head_fits(self.base()):
            raise damaged(self.host)
        found = []
        for i in range(1, n):
            state = self.read(i, &e)
            if state != TABLE_FREE and (
                    wanted is None or strncmp(e.name, wanted, TABLE_NAME_BYTES) == 0):
                found.append(self.entry(i))
        return found

    cdef table_state read(self, uint32_t number, table_entry *e) except <table_state>-1:
        cdef table_state state
        if table_read(self.base(), number, e, &state) < 0:
            raise damaged(self.host)
        return state

    def entry(self, uint32_t number):
        cdef table_entry e
        cdef table_state state = self.read(number, &e)
        cdef Entry entry = Entry()
        entry.table, entry.number, entry.state = self, number, STATES[state]
        name = (<bytes>e.name[:TABLE_NAME_BYTES]).partition(b"\0")[0]
        entry.name = name.decode("ascii", "replace")
        entry.size, entry.type = e.size, e.type
        entry.token, entry.quarantined = e.token, e.quarantined != 0
        return entry

    def add(self, str name, uint64_t size, str state):
        """A new entry with a type of its own; OSError when there is no room."""
        cdef table_entry e
        cdef uint32_t number = self._free_number()
        text = name.encode()
        if len(text) >= TABLE_NAME_BYTES:
            raise ValueError(f"the name {name} is too long")
        memset(&e, 0, sizeof(e))
        memcpy(e.name, <const char *>text, len(text))
        e.size = size
        e.type = table_draw_type(self.base())
        table_write(self.base(), number, &e, STATES.index(state))
        return self.entry(number)

    def _free_number(self):
        cdef uint32_t number = 1
        cdef table_entry e
        while True:
            if <size_t>(number + 1) * ENTRY_BYTES > self.host.table_reserved():
                self.host.table_reserve(<size_t>(number + 1) * ENTRY_BYTES)
            if self.read(number, &e) == TABLE_FREE:
                return number
            number += 1


cdef object damaged(Host host):
    return RefusedError(f"the arena {host.path} cannot be used: its device table is damaged")


# --- recovery ---

cdef struct kept_type:
    uint32_t type
    uint64_t pages

cdef struct kept_types:
    uint32_t pool
    size_t n
    kept_type *types    # in the order of their numbers


# Of each page that is recovered: a hundred million of them may be of 511 devices.
cdef cbool keep(void *ctx, const tmem_handle *h) noexcept nogil:
    cdef kept_types *kept = <kept_types *>ctx
    cdef uint64_t wanted = swizzle_type(h.object)
    cdef size_t first = 0, end = kept.n, middle
    while first < end:
        middle = (first + end) // 2
        if kept.types[middle].type < wanted:
            first = middle + 1
        else:
            end = middle
    return (h.pool == kept.pool and first < kept.n and kept.types[first].type == wanted and
            swizzle_page(h.object, h.index) < kept.types[first].pages)


def type_of(Entry entry not None):
    return entry.type


def recover(Host host not None, uint32_t pool, served):
    """Rebuilds the index with the pages of these entries; all others are dropped."""
    cdef kept_types kept
    kept.pool, kept.n = pool, len(served)
    kept.types = <kept_type *>calloc(kept.n + 1, sizeof(kept_type))
    if kept.types == NULL:
        raise MemoryError()
    try:
        for i, entry in enumerate(sorted(served, key=type_of)):
            kept.types[i].type, kept.types[i].pages = entry.type, entry.size // PAGE_BYTES
        return host.recover_with(keep, &kept)
    finally:
        free(kept.types)
