/* SPDX-License-Identifier: BSD-3-Clause */
/* One page's life under its lock: a slot is filled, becomes the page, is found, copied, dies. */
#ifndef PRESWAPD_PAGE_H
#define PRESWAPD_PAGE_H

#include "parts.h"

/* Fills a taken slot whose state word is 0, all but what is known under the lock only. */
void page_fill(struct tmem_host *, uint32_t ref, const struct tmem_handle *, uint16_t packing,
	       const void *bytes);
/* Births and deaths of pages in the gauges: +1 or -1.  The pool is the handle's: the one in a
 * slot may be damaged by now. */
void page_gauge(struct tmem_host *, uint32_t pool, const struct slot *, int change);
/* The same page in fewer bytes: what it was stored as before and is now. */
void page_regauge(struct tmem_host *, uint32_t pool, uint16_t before, uint16_t now);
/* Counts a put that is rejected, and why; -ENOSPC, for the caller to return. */
int page_reject(struct tmem_host *, uint64_t *why);

/* The lock of a page's object, and what is done under it; as in struct tmem_ops. */
void page_lock(struct tmem_host *, const struct tmem_handle *);
bool page_trylock(struct tmem_host *, const struct tmem_handle *);
void page_unlock(struct tmem_host *, const struct tmem_handle *);
struct tmem_found page_find(struct tmem_host *, const struct tmem_handle *);
int page_publish(struct tmem_host *, const struct tmem_handle *, const struct tmem_fresh *,
		 uint32_t *old);
uint32_t page_drop(struct tmem_host *, const struct tmem_handle *);
void page_copy(struct tmem_host *, const struct tmem_found *, struct tmem_copy *);
uint64_t page_slot_seq(const struct tmem_host *, uint32_t ref);
uint32_t page_slot_bytes(const struct tmem_host *, uint32_t ref);

/* Without the lock; also as in struct tmem_ops. */
void page_release(struct tmem_host *, uint32_t ref);
void page_release_all(struct tmem_host *, const uint32_t *refs, unsigned n);
void page_abandon(struct tmem_host *, const struct tmem_fresh *);
int page_open(struct tmem_host *, const struct tmem_copy *, void *page);
int page_open_packed(struct tmem_host *, const struct tmem_copy *, struct tmem_packed *);
int page_pack(enum tmem_compress, const void *page, uint8_t out[TMEM_PAGE], struct tmem_packed *);
int page_unpack(const struct tmem_packed *, void *page);
void page_count_get(struct tmem_host *, bool found);
void page_count_flush(struct tmem_host *, bool found);
uint64_t page_next_seq(const struct tmem_host *);
void page_visit(struct tmem_host *, const struct tmem_handle *, tmem_visit, void *ctx);
/* How many pages of the object were dropped. */
int64_t page_flush_object(struct tmem_host *, uint32_t pool, uint64_t object);

/* A copy's checksum, given its payload's digest; and whether the copy fits its own. */
uint32_t page_sum(struct tmem_host *, const struct tmem_copy *, uint64_t digest);
bool page_is_intact(struct tmem_host *, const struct tmem_copy *);

#endif
