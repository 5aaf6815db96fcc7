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

/* Without memory for its place at the queue's end it goes all the same: nothing else ever would. */
static enum fate judge(struct tmem_host *h, const struct queue_entry *e, bool may_spare)
{
	enum fate fate = evict(h, e, may_spare);

	if (fate == SPARED && queue_append(&h->queue, e) < 0)
		fate = evict(h, e, false);
	return fate;
}

uint64_t eviction_evict(struct tmem_host *h, uint64_t most)
{
	struct queue_entry e;
	uint64_t evicted = 0;
	unsigned spared = 0;

	while (evicted < most && queue_take(&h->queue, &e)) {
		enum fate fate = judge(h, &e, spared < SECOND_CHANCES);
		evicted += fate == EVICTED;
		spared = fate == EVICTED ? 0 : spared + (fate == SPARED);
	}
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
		evict(h, &e, false);           /* it is in no queue: nothing else ever would */
	else if (due && too_many_stale(h))
		queue_sweep(&h->queue, keep_entry, h);
}
