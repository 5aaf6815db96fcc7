/* Pages move to other slots.
 *
 * Memory comes back only by moving: after a random half of the pages is freed, every layout
 * without it keeps 98 to 100 % of its slabs.  The emptiest slabs are emptied into the others of
 * their class, as zsmalloc's compaction does.  And pages that were stored as they are, to be
 * taken fast, are compressed on their way from a slab set apart. */
#include "host.h"

#include <errno.h>
#include <string.h>

#include "clock.h"

#define MOVE_BYTES_AT_ONCE (16u << 20)         /* a call of tmem_maintain: some 10 ms */
#define SLABS_A_LOOK 16u
#define EVICT_AT_ONCE 256u                     /* before the next look at the limit ... */
#define EVICT_AT_LEAST 16u                     /* ... which a slab's pages may pay for */

/* Between two slabs of staged pages while puts come in: each takes some 0.1 ms.  The longest is a
 * share of 0.6 % of a processor that others want. */
#define SHORTEST_PAUSE_MS 1u
#define LONGEST_PAUSE_MS 16u
#define WAIT_MS 10u
#define COMPANY_MS 10u                         /* pages of a slab wait for the rest of it */

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
		host_regauge(h, old->what, fresh->what);
		store_release(&old->state, 0);
	}
	tmem_ops.unlock(h, &m->copy.handle);
	return moved;
}

static bool move_slot(struct tmem_host *h, uint32_t ref, unsigned flags)
{
	struct moving m;
	uint32_t to;

	if (!take_copy(h, ref, &m))
		return true;
	if (slots_alloc(&h->slots, length_of(m.copy.what), flags, &to))
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
			room = move_slot(h, ref_of(slab, i), SLOTS_NOGROW);
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

/* --- Staged pages ------------------------------------------------------------------------------ */

enum unstaged { GONE, STAYS, LATER, NO_ROOM };

/* The copy, its bytes already in the slot `to`, becomes the page. */
static void publish_packed(struct tmem_host *h, struct moving *m, const struct packed *p,
			   uint32_t to)
{
	m->copy.what = what_of(p->length, p->codec);
	m->copy.sum = host_sum(h, &m->copy, payload_digest(p->bytes, p->length));
	host_fill(h, to, &m->copy.handle, m->copy.what, p->bytes);
	slots_release(&h->slots, publish_copy(h, m, to) ? m->from.ref : to);
}

/* A damaged page stays what it is: packed again it would be signed anew. */
static enum unstaged pack(struct tmem_host *h, struct moving *m, enum tmem_compress how)
{
	struct scratch *scratch = scratch_of_thread();
	uint8_t out[TMEM_PAGE];
	struct packed p;
	uint32_t to;

	if (!scratch)
		return NO_ROOM;
	if (codec_of(m->copy.what) != CODEC_RAW || !host_is_intact(h, &m->copy))
		return STAYS;
	codec_pack(scratch, how, m->copy.bytes, arena_classes()->bytes[CLASS_RAW + 1], out, &p);
	if (p.codec == CODEC_RAW)
		return STAYS;
	if (slots_alloc(&h->slots, p.length, SLOTS_UNSTAGE, &to))
		return NO_ROOM;
	publish_packed(h, m, &p, to);
	return GONE;
}

/* A slot of a slab that is out of others' reach. */
static enum unstaged unstage_slot(struct tmem_host *h, uint32_t ref, enum tmem_compress how)
{
	const uint64_t *state = &arena_slot(&h->arena, ref)->state;
	struct moving m;

	if (!load_acquire(state))
		return LATER;
	if (!take_copy(h, ref, &m))
		return load_acquire(state) ? STAYS : LATER;
	return pack(h, &m, how);
}

/* What does not compress moves to where its like are, if it is so little that the slab is worth
 * having back; 15 pages of noise are as well left where they are. */
static void clear_out(struct tmem_host *h, uint32_t slab, unsigned stay)
{
	if (stay * 2 > arena_classes()->slots[CLASS_RAW])
		return;
	for (uint32_t i = 0; i < arena_classes()->slots[CLASS_RAW]; i++)
		if (slots_taken(&h->slots, ref_of(slab, i)))
			move_slot(h, ref_of(slab, i), SLOTS_UNSTAGE);
}

int host_unstage(struct tmem_host *h, bool also_open)
{
	uint32_t slab = slots_take_staged(&h->slots, also_open);
	unsigned found[NO_ROOM + 1] = {0};

	if (!slab)
		return 0;
	enum tmem_compress how = h->slots.slabs[slab].staging - 1u;
	for (uint32_t i = 0; !found[NO_ROOM] && i < arena_classes()->slots[CLASS_RAW]; i++)
		if (slots_taken(&h->slots, ref_of(slab, i)))
			found[unstage_slot(h, ref_of(slab, i), how)]++;
	bool tried = !found[LATER] && !found[NO_ROOM];
	if (tried)
		clear_out(h, slab, found[STAYS]);
	slots_return_staged(&h->slots, slab, tried);
	return tried ? 1 : found[NO_ROOM] ? -ENOSPC : -EAGAIN;
}

/* Nothing keeps the page's slab where it is, so all of it is read under one hold of the lock. */
void host_recompress(struct tmem_host *h, const struct tmem_handle *handle, enum tmem_compress how)
{
	struct moving m;

	tmem_ops.lock(h, handle);
	m.from = tmem_ops.find(h, handle);
	const struct slot *s = arena_slot(&h->arena, m.from.ref);
	bool raw = m.from.ref && codec_of(s->what) == CODEC_RAW && slot_header_fits(&h->arena, s);
	if (raw)
		tmem_ops.copy(h, &m.from, &m.copy);
	tmem_ops.unlock(h, handle);
	if (raw)
		pack(h, &m, how);
}

/* Who had to wait for a processor takes it from somebody, maybe from those who put. */
static unsigned next_pause(unsigned pause, uint64_t took_ns, uint64_t worked_ns)
{
	if (took_ns > worked_ns + worked_ns / 4)
		return pause < LONGEST_PAUSE_MS ? pause * 2 : pause;
	return pause > SHORTEST_PAUSE_MS ? pause / 2 : pause;
}

/* While puts come in it pauses after each slab, for longer where processors are busy, and takes
 * all of one before staging would have to stop.  A low priority would not do: it would be kept
 * from its processor with a page's lock held. */
void tmem_settle(struct tmem_host *h, unsigned milliseconds)
{
	bool also_open = !milliseconds ||
			 !slots_wait_staged(&h->slots, milliseconds, COMPANY_MS);
	uint64_t puts = count_of(&h->count.good_puts);
	unsigned pause = SHORTEST_PAUSE_MS;
	int done = 1;

	while (done == 1) {
		uint64_t began = monotonic_ns();
		uint64_t worked = thread_cpu_ns();
		done = host_unstage(h, also_open);
		pause = next_pause(pause, monotonic_ns() - began,
				   thread_cpu_ns() - worked);
		uint64_t before = puts;
		puts = count_of(&h->count.good_puts);
		if (puts != before && !slots_staging_presses(&h->slots))
			host_sleep(pause);
	}
	if (done)
		host_sleep(WAIT_MS);             /* for a put in flight, or for room */
}

/* What is staged by now, and not what guests go on to write. */
static void unstage_all(struct tmem_host *h)
{
	uint32_t slabs = slots_staged(&h->slots);

	while (slabs-- && host_unstage(h, true) == 1)
		;
}

/* --- Upkeep ------------------------------------------------------------------------------------ */

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
	if (all || slots_over_limit(&h->slots))
		unstage_all(h);
	make_good(h);
	compact(h, all);
	slots_give_back(&h->slots, all || slots_over_limit(&h->slots));
	pools_tidy(h);
}
