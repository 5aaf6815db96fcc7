/* Memory comes back only by moving: after a random half of the pages is freed, every layout
 * without it keeps 98 to 100 % of its slabs.  The emptiest slabs are emptied into the others of
 * their class, as zsmalloc's compaction does. */
#include "host.h"

#include <string.h>

#define MOVE_BYTES_AT_ONCE (16u << 20)         /* a call of tmem_maintain: some 10 ms */
#define SLABS_A_LOOK 16u
#define EVICT_AT_ONCE 256u                     /* before the next look at the limit ... */
#define EVICT_AT_LEAST 16u                     /* ... which a slab's pages may pay for */

struct moving {
	struct tmem_copy copy;
	struct tmem_found from;
};

/* Is the slot still the page's, with the same bytes?  Under the lock. */
static bool is_still(struct tmem_host *h, const struct moving *m)
{
	struct tmem_found now = tmem_ops.find(h, &m->copy.handle);

	return now.ref == m->from.ref && now.seq == m->from.seq;
}

static bool take_copy(struct tmem_host *h, uint32_t ref, struct moving *m)
{
	const struct slot *s = arena_slot(&h->arena, ref);

	if (load_acquire(&s->state) == 0)
		return false;                  /* being filled, or dead and not yet released */
	m->copy.handle = handle_of(s);
	if (m->copy.handle.pool >= POOLS_MAX)
		return false;
	tmem_ops.lock(h, &m->copy.handle);
	m->from = tmem_ops.find(h, &m->copy.handle);
	bool ours = m->from.ref == ref && slot_header_fits(&h->arena, s);
	if (ours)
		tmem_ops.copy(h, &m->from, &m->copy);
	tmem_ops.unlock(h, &m->copy.handle);
	return ours;
}

/* The copy keeps its seq (equal seq, equal bytes) and its checksum, so that a damaged payload
 * stays one.  A damaged header is not moved: it would be signed anew. */
static bool publish_copy(struct tmem_host *h, const struct moving *m, uint32_t to)
{
	struct slot *fresh = arena_slot(&h->arena, to), *old = arena_slot(&h->arena, m->from.ref);

	tmem_ops.lock(h, &m->copy.handle);
	bool moved = is_still(h, m);
	if (moved) {
		__atomic_store_n(&fresh->seq, m->copy.seq, __ATOMIC_RELAXED);
		store_release(&fresh->state, slot_live_word(&h->arena, fresh, m->copy.sum));
		index_set(&h->index, &m->copy.handle, to);
		store_release(&old->state, 0);
	}
	tmem_ops.unlock(h, &m->copy.handle);
	return moved;
}

static bool move_slot(struct tmem_host *h, uint32_t ref)
{
	struct moving m;
	uint32_t to;

	if (!take_copy(h, ref, &m))
		return true;
	if (slots_alloc(&h->slots, length_of(m.copy.what), SLOTS_NOGROW, &to))
		return false;
	host_fill(h, to, &m.copy.handle, m.copy.what, m.copy.bytes);
	bool moved = publish_copy(h, &m, to);
	slots_release(&h->slots, moved ? ref : to);
	if (moved)
		count_up(&h->count.moved_pages);
	return true;
}

/* What cannot be moved stays: a damaged page, one that is being put, one that finds no room. */
static void empty_slab(struct tmem_host *h, uint32_t slab)
{
	unsigned n = arena_classes()->slots[h->slots.slabs[slab].class];
	bool room = true;

	for (uint32_t i = 0; room && i < n; i++)
		if (slots_taken(&h->slots, ref_of(slab, i)))
			room = move_slot(h, ref_of(slab, i));
	slots_return(&h->slots, slab);
}

static void compact(struct tmem_host *h, bool all)
{
	uint32_t slabs[SLABS_A_LOOK], n = 1;
	uint32_t round = slots_new_round(&h->slots);
	uint32_t looks = all ? UINT32_MAX : MOVE_BYTES_AT_ONCE / SLAB_BYTES / SLABS_A_LOOK;

	while (n && looks-- && (slots_sparse(&h->slots) || slots_over_limit(&h->slots))) {
		n = slots_take_emptiest(&h->slots, round, slabs, SLABS_A_LOOK);
		for (uint32_t i = 0; i < n; i++)
			empty_slab(h, slabs[i]);
	}
}

static uint64_t still_over_limit(struct tmem_host *h)
{
	if (slots_over_limit(&h->slots))
		slots_give_back(&h->slots, true);
	return slots_over_limit(&h->slots);
}

/* No more than must go at least: no page frees more than it is long. */
static unsigned evict_for(struct tmem_host *h, uint64_t bytes)
{
	uint64_t pages = bytes / TMEM_PAGE;

	if (pages < EVICT_AT_LEAST)
		pages = EVICT_AT_LEAST;
	return host_evict(h, pages < EVICT_AT_ONCE ? (unsigned)pages : EVICT_AT_ONCE);
}

/* The limit was lowered: memory without pages goes first, then what denser slabs free, then the
 * oldest ephemeral pages; persistent ones never. */
static void make_good(struct tmem_host *h)
{
	uint64_t over = still_over_limit(h);

	while (over) {
		compact(h, false);
		over = still_over_limit(h);
		if (over && !evict_for(h, over))
			break;
	}
}

void tmem_maintain(struct tmem_host *h, bool all)
{
	make_good(h);
	compact(h, all);
	slots_give_back(&h->slots, all || slots_over_limit(&h->slots));
	pools_tidy(h);
}
