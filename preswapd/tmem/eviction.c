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

static bool evict(struct tmem_host *h, const struct queue_entry *e)
{
	struct tmem_handle handle = handle_in(e);

	page_lock(h, &handle);
	uint32_t dead = is_current(h, e, &handle) ? page_drop(h, &handle) : 0;
	page_unlock(h, &handle);
	page_release(h, dead);
	if (dead)
		count_up(&h->count.evicted_pages);
	return dead != 0;
}

unsigned eviction_evict(struct tmem_host *h, unsigned most)
{
	struct queue_entry e;
	unsigned evicted = 0;

	while (evicted < most && queue_take(&h->queue, &e))
		evicted += evict(h, &e);
	return evicted;
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

void eviction_enqueue(struct tmem_host *h, const struct tmem_handle *handle, uint64_t seq)
{
	struct queue_entry e = queue_entry_of(handle, seq);
	int due = queue_append(&h->queue, &e);

	if (due < 0)
		evict(h, &e);                  /* it is in no queue: nothing else ever would */
	else if (due && too_many_stale(h))
		queue_sweep(&h->queue, keep_entry, h);
}
