# cython: language_level=3
# SPDX-License-Identifier: BSD-3-Clause
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from preswapd.tmem._tmem cimport cbool


cdef extern from "remote.h" nogil:
    ctypedef struct remote_ops_t "struct remote_ops":
        pass
    const char *REMOTE_CAPSULE
    ctypedef struct remote_handle "struct remote_handle":
        const remote_ops_t *ops
        remote *remote
    ctypedef struct share_ops_t "struct share_ops":
        pass
    ctypedef struct remote_counters "struct remote_counters":
        uint64_t reads, misses, late, away, wrong
    const char *SHARE_CAPSULE
    ctypedef struct share "struct share":
        pass
    ctypedef struct share_handle "struct share_handle":
        const share_ops_t *ops
        share *share

cdef extern from "page_size.h" nogil:
    enum:
        PAGE_BYTES

cdef extern from "latency.h" nogil:
    enum:
        LATENCY_BUCKETS
    ctypedef struct latency "struct latency":
        uint64_t counts[LATENCY_BUCKETS]
        uint64_t nanoseconds

cdef extern from "tier.h" nogil:
    enum:
        SEAL_KEY_BYTES
        SEAL_SESSION_BYTES
    ctypedef struct versions "struct versions":
        pass
    ctypedef struct courier_counters "struct courier_counters":
        uint64_t sets, sets_dropped, sets_refused, heard
    ctypedef struct courier "struct courier":
        courier_counters count
    ctypedef struct remote "struct remote":
        versions versions
        courier courier
        cbool is_enabled
        remote_counters count
        latency gets
    const remote_ops_t remote_ops
    int tier_init(remote *, const uint8_t *, const uint8_t *)
    void tier_destroy(remote *)
    void tier_set_timeout(remote *, uint64_t)
    void tier_set_enabled(remote *, cbool)
    int tier_connect(remote *, int)
    cbool tier_is_open(const remote *)
    void tier_tick(remote *)
    void versions_set_most(versions *, uint64_t, uint64_t)
    void versions_alive(versions *, uint64_t *, uint64_t *)
    cbool courier_is_there(const courier *)
    void courier_disconnect(courier *)
    const char *courier_serve(courier *)
    size_t courier_status(courier *, uint8_t *, size_t)

cdef extern from "share.h" nogil:
    enum:
        SHARE_DIGEST_BYTES
        SHARE_SUM_BYTES
    const share_ops_t share_ops
    int share_init(share *, remote *, const uint8_t *, const uint8_t *, int, uint64_t)
    int share_sum(const uint8_t *, uint8_t *)
    void share_destroy(share *)

cdef extern from "openssl/evp.h" nogil:
    ctypedef struct EVP_MD_CTX:
        pass
    ctypedef struct EVP_MD:
        pass
    EVP_MD_CTX *EVP_MD_CTX_new()
    void EVP_MD_CTX_free(EVP_MD_CTX *)
    const EVP_MD *EVP_sha256()
    int EVP_DigestInit_ex(EVP_MD_CTX *, const EVP_MD *, void *)
    int EVP_DigestUpdate(EVP_MD_CTX *, const void *, size_t)
    int EVP_DigestFinal_ex(EVP_MD_CTX *, uint8_t *, unsigned *)


cdef class Remote:
    cdef remote *r
    cdef uint64_t ttl_s
    cdef remote_handle of_it


cdef class Share:
    cdef share *s
    cdef Remote remote
    cdef readonly bytes digest
    cdef share_handle of_it


cdef class Digest:
    cdef EVP_MD_CTX *context
