# cython: language_level=3, binding=False
# SPDX-License-Identifier: BSD-3-Clause
"""Who the client is whose callback runs, as nbdkit's C functions know it."""

from libc.stdint cimport int64_t, uint16_t

cdef extern from "peer.h":
    enum: INET6_ADDRSTRLEN
    enum: PEER_IS_LOCAL
    enum: PEER_IS_GONE
    bint peer_uses_tls()
    int64_t peer_process()
    bint peer_drop() nogil
    int peer_address(char *host, uint16_t *port)


def uses_tls():
    """While it opens an export; False where nbdkit cannot say."""
    return bool(peer_uses_tls())


def address():
    """Host and port; None over a Unix socket.  OSError where it has gone."""
    cdef char[INET6_ADDRSTRLEN] host
    cdef uint16_t port = 0
    cdef int kind = peer_address(host, &port)
    if kind == PEER_IS_GONE:
        raise ConnectionError("the client has gone")
    return None if kind == PEER_IS_LOCAL else ((<bytes>host).decode(), port)


def process():
    """Its number, over a Unix socket; 0 where its namespace is not seen from here."""
    return peer_process()


def drop():
    """Without an answer to this request, or to others that are under way.  False: nbdkit cannot."""
    cdef bint done
    with nogil:  # it waits for an answer that is being sent
        done = peer_drop()
    return bool(done)
