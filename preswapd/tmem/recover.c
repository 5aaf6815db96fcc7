/* SPDX-License-Identifier: BSD-3-Clause */
/* The index, rebuilt from what a dead process left in the arena (docs/concurrency.md, Recovery).
 *
 * Every step may be repeated: a kill in here leaves an arena that the next start reads the same
 * way.  Nothing is served before the end, so that there are no locks to take.
 */
#include <errno.h>

#include "page.h"
#include "pools.h"

struct recovering {
	struct tmem_host *host;
	tmem_keep keep;
	void *ctx;
	struct tmem_recovery *found;
};

static void kill_slot(struct slot *s)
{
	store_release(&s->state, 0);
}

/* Rule R2: of two live slots of one page the higher seq wins; the loser dies, or a later trim of
 * the winner would bring it back at the next kill. */
static int index_slot(struct recovering *r, uint32_t ref)
{
	struct tmem_host *h = r->host;
	struct slot *s = arena_slot(&h->arena, ref);
	struct tmem_handle handle = handle_of(s);
	uint32_t other = index_get(&h->index, &handle);

	if (other) {
		r->found->losers++;
		struct slot *rival = arena_slot(&h->arena, other);
		if (rival->seq >= s->seq) {
			kill_slot(s);
			return 0;
		}
		page_gauge(h, handle.pool, rival, -1);
		kill_slot(rival);
		slabs_mark(&h->slabs, other, false);
	} else if (index_prepare(&h->index, &handle)) {
		return -ENOMEM;
	}
	index_set(&h->index, &handle, ref);
	slabs_mark(&h->slabs, ref, true);
	page_gauge(h, handle.pool, s, 1);
	if (s->seq >= h->seq)
		h->seq = s->seq + 1;
	return 0;
}

static bool is_whole(const struct arena *a, const struct slot *s, unsigned class)
{
	return slot_header_fits(a, s) && length_of(s->packing) <= arena_classes()->bytes[class];
}

static int recover_slot(struct recovering *r, uint32_t ref, unsigned class)
{
	struct slot *s = arena_slot(&r->host->arena, ref);

	if (load_acquire(&s->state) == 0)
		return 0;
	if (!is_whole(&r->host->arena, s, class)) {
		r->found->damaged_slots++;
		kill_slot(s);
		return 0;
	}
	struct tmem_handle handle = handle_of(s);
	if (!tmem_pool_exists(r->host, handle.pool) ||
	    pool_is_ephemeral(&r->host->pools[handle.pool]) ||
	    (r->keep && !r->keep(r->ctx, &handle))) {
		r->found->dropped_pages++;
		kill_slot(s);
		return 0;
	}
	return index_slot(r, ref);
}

static int recover_slab(struct recovering *r, uint32_t slab)
{
	int class = arena_class(&r->host->arena, slab);

	if (class < 0) {
		r->found->damaged_slabs++;
		arena_uncarve(&r->host->arena, slab);
	}
	if (class <= 0)
		return 0;
	int err = slabs_adopt(&r->host->slabs, slab, (unsigned)class);
	for (uint32_t i = 0; !err && i < arena_classes()->slots[class]; i++)
		err = recover_slot(r, ref_of(slab, i), (unsigned)class);
	return err;
}

int tmem_recover(struct tmem_host *h, tmem_keep keep, void *ctx, struct tmem_recovery *found)
{
	struct recovering r = {h, keep, ctx, found};
	int err = 0;

	*found = (struct tmem_recovery){0};
	for (uint32_t slab = arena_next_slab(&h->arena, 1); !err && slab < h->arena.slabs;
	     slab = arena_next_slab(&h->arena, slab + 1))
		err = recover_slab(&r, slab);
	if (err)
		return err;
	pools_drop_ephemeral(h);
	slabs_adopt_done(&h->slabs);
	found->stored_pages = h->count.stored_pages;
	return 0;
}
