/* SPDX-License-Identifier: BSD-3-Clause */
#include "eviction.h"

#include "page.h"

static struct tmem_handle handle_in(const struct queue_entry *e)
{
	return (struct tmem_handle){.object = e->object, .index = e->index, .pool = e->pool};
}

/* Under the lock.  The pool's number may have gone to a pool of another kind since. */
static bool is_current(struct tmem_host *h, const struct queue_entry *e,
		       const struct tmem_handle *handle)
{
	struct tmem_found found = page_find(h, handle);

	return found.ref && queue_entry_of(handle, found.seq).seq == e->seq &&
	       pool_is_ephemeral(&h->pools[handle->pool]);
}

/* For each page that goes so many may be passed over that were got since they were put or passed over
 * last: a put must not wait for a walk through a million of them. */
#define SECOND_CHANCES 8u

enum fate { STALE, SPARED, EVICTED };

/* Of the page of an entry that is in the queue no more. */
static enum fate evict(struct tmem_host *h, const struct queue_entry *e, bool may_spare)
{
	struct tmem_handle handle = handle_in(e);

	page_lock(h, &handle);
	bool current = is_current(h, e, &handle);
	bool spared = current && may_spare && index_was_got(&h->index, &handle);
	uint32_t dead = current && !spared ? page_drop(h, &handle) : 0;
	page_unlock(h, &handle);
	page_release(h, dead);
	if (dead) {
		count_up(&h->count.evicted_pages);
		count_up(&h->pools[handle.pool].evicted);
	}
	return dead ? EVICTED : spared ? SPARED : STALE;
}

static bool keep_entry(void *ctx, const struct queue_entry *e)
{
	struct tmem_host *h = ctx;
	struct tmem_handle handle = handle_in(e);

	page_lock(h, &handle);
	bool current = is_current(h, e, &handle);
	page_unlock(h, &handle);
	return current;
}

/* A page costs a header of 32 bytes, 5 to 6 in the index, 1 to 2 of a slab, and its entry of 16:
 * one stale entry for sixteen pages keeps that below 56.  Of 17 entries one is stale then, and each
 * put leaves at most one: a block of 254 swept for every eighth put keeps up. */
#define PAGES_A_STALE_ENTRY 16u
#define STALE_ENTRIES_ANYWAY 1024u

static bool too_many_stale(struct tmem_host *h)
{
	uint64_t pages = count_of(&h->count.ephemeral_pages);

	return count_of(&h->queue.entries) >
	       pages + pages / PAGES_A_STALE_ENTRY + STALE_ENTRIES_ANYWAY;
}

void eviction_tidy(struct tmem_host *h)
{
	bool more = true;

	while (more && too_many_stale(h))
		more = queue_sweep(&h->queue, keep_entry, h);
}

/* Without memory for its place at the queue's end it goes: nothing else ever would.  Whether it did. */
static bool append_or_evict(struct tmem_host *h, const struct queue_entry *e)
{
	int due = queue_append(&h->queue, e);

	if (due > 0 && too_many_stale(h))
		queue_sweep(&h->queue, keep_entry, h);
	return due < 0 && evict(h, e, false) == EVICTED;
}

void eviction_enqueue(struct tmem_host *h, const struct tmem_handle *handle, uint64_t seq)
{
	struct queue_entry e = queue_entry_of(handle, seq);

	append_or_evict(h, &e);
}

#define ANY_POOL POOL_OF_NOBODY

static bool take(struct tmem_host *h, uint32_t pool, struct queue_entry *to)
{
	return pool == ANY_POOL ? queue_take(&h->queue, to) : queue_take_of(&h->queue, pool, to);
}

static uint64_t evict_of(struct tmem_host *h, uint32_t pool, uint64_t most)
{
	struct queue_entry e;
	uint64_t evicted = 0;
	unsigned spared = 0;

	while (evicted < most && take(h, pool, &e)) {
		enum fate fate = evict(h, &e, spared < SECOND_CHANCES);
		if (fate == SPARED && append_or_evict(h, &e))
			fate = EVICTED;
		evicted += fate == EVICTED;
		spared = fate == EVICTED ? 0 : spared + (fate == SPARED);
	}
	return evicted;
}

uint64_t eviction_evict(struct tmem_host *h, uint64_t most)
{
	return evict_of(h, ANY_POOL, most);
}

/* A page that another thread has published may not be in the queue yet: that thread comes here too. */
bool eviction_fit_pool(struct tmem_host *h, struct pool *p, uint64_t more)
{
	uint64_t most = count_of(&p->max_bytes);
	uint32_t id = (uint32_t)(p - h->pools);
	uint64_t evicted = 1;

	if (more > most)
		return false;
	while (evicted && count_of(&p->bytes) > most - more) {
		evicted = evict_of(h, id, 1);
		count_add(&p->evicted_by_itself, evicted);
	}
	return true;
}
