/* SPDX-License-Identifier: BSD-3-Clause */
/* Pages move to other slots.
 *
 * Memory comes back only by moving: after a random half of the pages is freed, every layout
 * without it keeps 98 to 100 % of its slabs.  The emptiest slabs are emptied into the others of
 * their class, as zsmalloc's compaction does.  And pages that were stored as they are, to be
 * taken fast, are compressed on their way from a slab set apart; those that nobody has touched for
 * long are compressed once more, by a denser codec, where that brings them into a shorter slot. */
#include "mover.h"

#include <errno.h>

#include "clock.h"
#include "codec.h"
#include "page.h"
#include "slots.h"
#include "staging.h"
#include "victims.h"

#define MOVE_BYTES_AT_ONCE (16u << 20)         /* a call of tmem_maintain: some 10 ms */
#define SLABS_A_LOOK 16u
/* The mover starts when less than this share of the held memory is live data; what is idle is packed
 * closer, as it stays so. */
#define SPARSE_PERCENT 85u
#define PACKED_PERCENT 95u
/* Recompression looks for victims again, where those that it found were of no use. */
#define LOOK_EVERY_NS 1000000000ull

struct moving {
	struct tmem_copy copy;
	struct tmem_found from;
	unsigned class;                /* of the slot that it leaves, where that counts */
};

/* Is the slot still the page's, with the same bytes?  Under the lock. */
static bool is_still(struct tmem_host *h, const struct moving *m)
{
	struct tmem_found now = page_find(h, &m->copy.handle);

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
	page_lock(h, &m->copy.handle);
	m->from = page_find(h, &m->copy.handle);
	bool ours = m->from.ref == ref && slot_header_fits(&h->arena, s);
	if (ours)
		page_copy(h, &m->from, &m->copy);
	page_unlock(h, &m->copy.handle);
	return ours;
}

/* The copy keeps its seq (equal seq, equal bytes) and its checksum, so that a damaged payload
 * stays one.  A damaged header is not moved: it would get a check that fits. */
static bool publish_copy(struct tmem_host *h, const struct moving *m, uint32_t to)
{
	struct slot *fresh = arena_slot(&h->arena, to), *old = arena_slot(&h->arena, m->from.ref);

	page_lock(h, &m->copy.handle);
	bool moved = is_still(h, m);
	if (moved) {
		__atomic_store_n(&fresh->seq, m->copy.seq, __ATOMIC_RELAXED);
		store_release(&fresh->state, slot_live_word(&h->arena, fresh, m->copy.sum));
		index_set(&h->index, &m->copy.handle, to);
		page_regauge(h, m->copy.handle.pool, old->packing, fresh->packing);
		store_release(&old->state, 0);
	}
	page_unlock(h, &m->copy.handle);
	return moved;
}

static bool move_slot(struct tmem_host *h, uint32_t ref, unsigned flags)
{
	struct moving m;
	uint32_t to;

	if (!take_copy(h, ref, &m))
		return true;
	if (slots_alloc(&h->slabs, length_of(m.copy.packing), flags, &to))
		return false;
	page_fill(h, to, &m.copy.handle, m.copy.packing, m.copy.bytes);
	bool moved = publish_copy(h, &m, to);
	slots_release(&h->slabs, moved ? ref : to);
	if (moved)
		count_up(&h->count.moved_pages);
	return true;
}

/* What cannot be moved stays: a damaged page, one that is being put, one that finds no room. */
static bool empty_slab(struct tmem_host *h, uint32_t slab)
{
	unsigned n = arena_classes()->slots[h->slabs.slab[slab].class];
	bool room = true;

	for (uint32_t i = 0; room && i < n; i++)
		if (slots_taken(&h->slabs, ref_of(slab, i)))
			room = move_slot(h, ref_of(slab, i), SLOTS_NOGROW);
	return victims_return(&h->slabs, slab);
}

/* The slabs that one look finds: how many, and how many of them are empty now. */
static uint32_t empty_some(struct tmem_host *h, uint32_t round, uint32_t *empty)
{
	uint32_t slabs[SLABS_A_LOOK];
	uint32_t n = victims_take(&h->slabs, round, slabs, SLABS_A_LOOK);

	*empty = 0;
	for (uint32_t i = 0; i < n; i++)
		*empty += empty_slab(h, slabs[i]);
	return n;
}

void mover_compact(struct tmem_host *h, bool all)
{
	uint32_t n = 1, empty;
	uint32_t round = victims_new_round(&h->slabs);
	uint32_t looks = all ? UINT32_MAX : MOVE_BYTES_AT_ONCE / SLAB_BYTES / SLABS_A_LOOK;

	while (n && looks-- &&
	       (victims_wanted(&h->slabs, SPARSE_PERCENT) || slabs_over_limit(&h->slabs) ||
		slabs_lacking(&h->slabs) > 0))
		n = empty_some(h, round, &empty);
}

bool mover_pack(struct tmem_host *h)
{
	uint32_t empty = 0;

	if (victims_wanted(&h->slabs, PACKED_PERCENT))
		empty_some(h, victims_new_round(&h->slabs), &empty);
	return empty > 0;
}

/* --- Staged pages --- */

enum settled { GONE, STAYS, LATER, NO_ROOM };

/* The copy, its bytes already in the slot `to`, becomes the page. */
static bool publish_packed(struct tmem_host *h, struct moving *m, const struct tmem_packed *p,
			   uint32_t to)
{
	m->copy.packing = packing_of(p->length, p->codec);
	m->copy.sum = page_sum(h, &m->copy, payload_digest(p->bytes, p->length));
	page_fill(h, to, &m->copy.handle, m->copy.packing, p->bytes);
	bool moved = publish_copy(h, m, to);
	slots_release(&h->slabs, moved ? m->from.ref : to);
	return moved;
}

/* A damaged page stays what it is: compressed, it would get a checksum that fits. */
static enum settled pack(struct tmem_host *h, struct moving *m, enum tmem_compress compress)
{
	struct scratch *scratch = scratch_of_thread();
	uint8_t out[TMEM_PAGE];
	struct tmem_packed p;
	uint32_t to;

	if (!scratch)
		return NO_ROOM;
	if (codec_of(m->copy.packing) != CODEC_RAW || !page_is_intact(h, &m->copy))
		return STAYS;
	codec_pack(scratch, compress, m->copy.bytes, arena_longest_packed(), out, &p);
	if (p.codec == CODEC_RAW)
		return STAYS;
	if (slots_alloc(&h->slabs, p.length, SLOTS_SETTLE, &to))
		return NO_ROOM;
	publish_packed(h, m, &p, to);
	return GONE;
}

/* A slot of a slab that nobody else can reach. */
static enum settled settle_slot(struct tmem_host *h, uint32_t ref, enum tmem_compress compress)
{
	const uint64_t *state = &arena_slot(&h->arena, ref)->state;
	struct moving m;

	if (!load_acquire(state))
		return LATER;
	if (!take_copy(h, ref, &m))
		return load_acquire(state) ? STAYS : LATER;
	return pack(h, &m, compress);
}

/* Pages that do not compress move to slabs of such pages, if they are so few that the slab is worth
 * having back; a full slab of them is left as it is. */
static void clear_out(struct tmem_host *h, uint32_t slab, unsigned stay)
{
	if (stay * 2 > arena_classes()->slots[CLASS_RAW])
		return;
	for (uint32_t i = 0; i < arena_classes()->slots[CLASS_RAW]; i++)
		if (slots_taken(&h->slabs, ref_of(slab, i)))
			move_slot(h, ref_of(slab, i), SLOTS_SETTLE);
}

int mover_settle(struct tmem_host *h, bool also_open)
{
	uint32_t slab = staging_take(&h->slabs, also_open);
	unsigned found[NO_ROOM + 1] = {0};

	if (!slab)
		return 0;
	enum tmem_compress compress = h->slabs.slab[slab].staging - 1u;
	for (uint32_t i = 0; !found[NO_ROOM] && i < arena_classes()->slots[CLASS_RAW]; i++)
		if (slots_taken(&h->slabs, ref_of(slab, i)))
			found[settle_slot(h, ref_of(slab, i), compress)]++;
	bool tried = !found[LATER] && !found[NO_ROOM];
	if (tried)
		clear_out(h, slab, found[STAYS]);
	staging_return(&h->slabs, slab, tried);
	return tried ? 1 : found[NO_ROOM] ? -ENOSPC : -EAGAIN;
}

/* --- Single pages ------------------------------------------------------------------------------ */

static bool is_raw(uint16_t packing)
{
	return codec_of(packing) == CODEC_RAW;
}

/* Others can reach the page's slab, so all that is read of it is read under the lock.  Returns whether
 * there is such a page, and has no damaged header. */
static bool take_page(struct tmem_host *h, const struct tmem_handle *handle,
		      bool (*wanted)(uint16_t packing), struct moving *m)
{
	page_lock(h, handle);
	m->from = page_find(h, handle);
	const struct slot *s = arena_slot(&h->arena, m->from.ref);
	bool taken = m->from.ref && wanted(s->packing) && slot_header_fits(&h->arena, s);
	if (taken) {
		m->class = slab_class(&h->slabs, m->from.ref);
		page_copy(h, &m->from, &m->copy);
	}
	page_unlock(h, handle);
	return taken;
}

void mover_settle_page(struct tmem_host *h, const struct tmem_handle *handle,
		       enum tmem_compress compress)
{
	struct moving m;

	if (take_page(h, handle, is_raw, &m))
		pack(h, &m, compress);
}

static bool is_lz4_or_raw(uint16_t packing)
{
	return codec_of(packing) == CODEC_LZ4 || is_raw(packing);
}

static int unpack(struct tmem_host *h, struct scratch *scratch, const struct moving *m,
		  uint8_t page[TMEM_PAGE])
{
	if (!page_is_intact(h, &m->copy))
		return -EIO;
	return codec_unpack(scratch, codec_of(m->copy.packing), m->copy.bytes,
			    length_of(m->copy.packing), page);
}

/* In a full pool the slots are free that pages have left, and those are long ones: slabs of them are
 * emptied, for shorter ones to be carved. */
static int alloc_emptying(struct tmem_host *h, unsigned length, unsigned class, uint32_t *ref)
{
	int err = slots_alloc_shorter(&h->slabs, length, class, ref);
	uint64_t now = coarse_ns(), before = count_of(&h->no_victims_at);
	uint32_t empty;

	if (!err || (before && now - before < LOOK_EVERY_NS))
		return err;
	empty_some(h, victims_new_round(&h->slabs), &empty);
	err = slots_alloc_shorter(&h->slabs, length, class, ref);
	__atomic_store_n(&h->no_victims_at, err ? now : 0, __ATOMIC_RELAXED);
	return err;
}

/* Denser is zstd than LZ4, and either than raw.  Nobody has read a page that turns out to be damaged:
 * it stays what it is, and is not counted. */
int mover_recompress(struct tmem_host *h, const struct tmem_handle *handle,
		     enum tmem_compress compress)
{
	struct scratch *scratch = scratch_of_thread();
	uint8_t page[TMEM_PAGE], out[TMEM_PAGE];
	struct moving m;
	struct tmem_packed p;
	uint32_t to;

	if (!scratch)
		return -ENOMEM;
	if (!take_page(h, handle, compress == TMEM_ZSTD ? is_lz4_or_raw : is_raw, &m) ||
	    unpack(h, scratch, &m, page))
		return 0;
	codec_pack(scratch, compress, page, arena_longest_packed(), out, &p);
	if (class_for(p.length) <= m.class)
		return 0;
	int err = alloc_emptying(h, p.length, m.class, &to);
	if (err)
		return err;
	uint32_t saved = slab_slot_bytes(m.class) - slab_slot_bytes(slab_class(&h->slabs, to));
	if (!publish_packed(h, &m, &p, to))
		return 0;
	count_up(&h->count.recompressed_pages);
	count_add(&h->count.recompress_saved, saved);
	return 1;
}
