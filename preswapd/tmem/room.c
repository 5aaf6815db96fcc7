/* SPDX-License-Identifier: BSD-3-Clause */
#include "room.h"

#include <errno.h>

#include "clock.h"
#include "codec.h"
#include "eviction.h"
#include "mover.h"
#include "page.h"
#include "slots.h"
#include "staging.h"

/* Evicting a few pages at a time: enough to empty a slab of most classes in the end. */
#define EVICT_AT_ONCE 16u
#define EVICT_ROUNDS 256u
/* How long a put without room waits for staged pages that other threads are still putting, which
 * takes microseconds, or compressing, 0.1 ms a slab; either may have lost its processor. */
#define SETTLE_WAITS 50u
#define SETTLE_WAIT_MS 1u

/* A put needs room: staged pages are compressed first, all of them if need be.  Above a lowered
 * limit that would be useless, as nothing gets in before maintain() has given memory back. */
static int alloc_settling(struct tmem_host *h, unsigned length, unsigned flags, uint32_t *ref)
{
	int err = slots_alloc(&h->slabs, length, flags, ref);
	unsigned waits = 0;

	while ((err == -ENOSPC || err == -ENOMEM) && waits < SETTLE_WAITS) {
		if (!staging_slabs(&h->slabs) || slabs_over_limit(&h->slabs))
			break;
		if (flags & TMEM_NOWAIT)
			return -EAGAIN;
		int settled = mover_settle(h, true);
		if (settled == -ENOSPC)
			break;
		if (settled != 1) {
			sleep_ms(SETTLE_WAIT_MS);
			waits++;
		}
		err = slots_alloc(&h->slabs, length, flags, ref);
	}
	return err;
}

typedef int (*allocate)(struct tmem_host *, unsigned length, unsigned flags, uint32_t *ref);

static int alloc_at_once(struct tmem_host *h, unsigned length, unsigned flags, uint32_t *ref)
{
	return slots_alloc(&h->slabs, length, flags, ref);
}

/* Ephemeral pages go until there is a slot, or no such page is left. */
static int alloc_evicting(struct tmem_host *h, allocate alloc, unsigned length, unsigned flags,
			  uint32_t *ref)
{
	int err = alloc(h, length, flags, ref);

	for (unsigned i = 0; (err == -ENOSPC || err == -ENOMEM) && i < EVICT_ROUNDS; i++) {
		if (!count_of(&h->count.ephemeral_pages))
			break;
		if (flags & TMEM_NOWAIT)
			return -EAGAIN;
		if (slabs_over_limit(&h->slabs) || !eviction_evict(h, EVICT_AT_ONCE))
			break;
		err = alloc(h, length, flags, ref);
	}
	return err;
}

/* A persistent page does not wait for staged pages while ephemeral ones can go. */
static int alloc_for(struct tmem_host *h, struct pool *pool, unsigned length, unsigned flags,
		     uint32_t *ref)
{
	if (pool_is_ephemeral(pool)) {
		if (!eviction_fit_pool(h, pool, HEADER_BYTES + length))
			return -ENOSPC;
		return alloc_evicting(h, alloc_settling, length, flags | SLOTS_LEAVES_SPARE, ref);
	}
	int err = alloc_evicting(h, alloc_at_once, length, flags, ref);
	if (flags & TMEM_SPARE || (err != -ENOSPC && err != -ENOMEM))
		return err;
	return alloc_settling(h, length, flags, ref);
}

/* Hashes the copy and not the source: it is in the cache now.  The source would take a fourth more
 * (25 instead of 20 us for 32 raw pages, copying included). */
static void fill_fresh(struct tmem_host *h, const struct tmem_handle *handle,
		       const struct tmem_packed *p, struct tmem_fresh *fresh)
{
	unsigned class = slab_class(&h->slabs, fresh->ref);

	fresh->packing = packing_of(p->length, p->codec);
	page_fill(h, fresh->ref, handle, fresh->packing, p->bytes);
	fresh->digest = payload_digest(arena_payload(&h->arena, fresh->ref, class), p->length);
}

/* Whether it was asked for: a page that only might come in is no rejected put. */
static int reject(struct tmem_host *h, unsigned flags, uint64_t *why)
{
	return flags & TMEM_SPARE ? -ENOSPC : page_reject(h, why);
}

/* Early and cheap: a rejected put of a full pool should cost next to nothing. */
static int begin(struct tmem_host *h, const struct tmem_handle *handle, unsigned flags,
		 struct tmem_fresh *fresh)
{
	fresh->generation = pool_generation(&h->pools[handle->pool]);
	if (!(flags & TMEM_REPLACE) && pool_is_full(&h->pools[handle->pool]))
		return reject(h, flags, &h->count.pool_limit_hit);
	return 0;
}

static int fill_slot(struct tmem_host *h, const struct tmem_handle *handle,
		     const struct tmem_packed *p, unsigned flags, struct tmem_fresh *fresh)
{
	int err = alloc_for(h, &h->pools[handle->pool], p->length, flags, &fresh->ref);

	if (err == -EAGAIN)
		return err;
	if (err)
		return reject(h, flags, err == -ENOSPC ? &h->count.pool_limit_hit :
							 &h->count.reject_alloc_fail);
	fill_fresh(h, handle, p, fresh);
	return 0;
}

int room_build(struct tmem_host *h, const struct tmem_handle *handle, const void *page,
	       enum tmem_compress compress, unsigned flags, struct tmem_fresh *fresh)
{
	struct scratch *scratch = scratch_of_thread();
	uint8_t out[TMEM_PAGE];
	struct tmem_packed p;
	int err = begin(h, handle, flags, fresh);

	if (err)
		return err;
	if (!scratch)
		return reject(h, flags, &h->count.reject_alloc_fail);
	codec_pack(scratch, compress, page, arena_longest_packed(), out, &p);
	return fill_slot(h, handle, &p, flags, fresh);
}

int room_build_packed(struct tmem_host *h, const struct tmem_handle *handle,
		      const struct tmem_packed *p, unsigned flags, struct tmem_fresh *fresh)
{
	if (p->codec == CODEC_RAW || p->length > arena_longest_packed())
		return -EINVAL;
	int err = begin(h, handle, flags, fresh);
	return err ? err : fill_slot(h, handle, p, flags, fresh);
}

/* More would only be rejected when they are published, and counted twice. */
static uint64_t pages_that_fit(const struct pool *p, uint64_t n)
{
	if (pool_is_full(p))
		return 0;
	uint64_t room = count_of(&p->max_pages) - count_of(&p->pages);
	return n < room ? n : room;
}

static int slots_for_whole_pages(struct tmem_host *h, const struct pool *pool, unsigned n,
				 enum tmem_compress compress, unsigned flags, uint32_t *refs)
{
	if (n == 0)
		return 0;
	if (pool_is_ephemeral(pool)) {
		/* Others would go for the room that a page takes only until it is compressed. */
		if (count_of(&pool->max_bytes) != UINT64_MAX)
			return 0;
		flags |= SLOTS_LEAVES_SPARE;
	}
	if (compress == TMEM_NONE)
		return slots_alloc_raw(&h->slabs, n, flags, refs);
	return slots_alloc_staged(&h->slabs, compress, n, flags, refs);
}

int room_stage(struct tmem_host *h, const struct tmem_handle *handles, const void *pages,
	       unsigned n, enum tmem_compress compress, unsigned flags, struct tmem_fresh *fresh)
{
	uint32_t generation = pool_generation(&h->pools[handles->pool]);
	const uint8_t *page = pages;
	uint32_t refs[TMEM_STAGE_MOST];
	unsigned wanted = 0;

	if (compress != TMEM_NONE && !staging_is_on(&h->slabs))
		return 0;
	n = (unsigned)pages_that_fit(&h->pools[handles->pool], n);
	while (wanted < n && !codec_same_filled(page + wanted * TMEM_PAGE))
		wanted++;
	int got = slots_for_whole_pages(h, &h->pools[handles->pool], wanted, compress, flags, refs);
	for (int i = 0; i < got; i++) {
		struct tmem_packed raw = {page + (unsigned)i * TMEM_PAGE, TMEM_PAGE, CODEC_RAW};
		fresh[i].generation = generation;
		fresh[i].ref = refs[i];
		fill_fresh(h, &handles[i], &raw, &fresh[i]);
	}
	return got;
}
