/* SPDX-License-Identifier: BSD-3-Clause */
#include "slots.h"

#include <errno.h>

#include "clock.h"

static void take(struct slabs *s, uint32_t n, uint32_t slot)
{
	struct slab *slab = &s->slab[n];

	slab->taken[slot / 64] |= 1ull << slot % 64;
	slab->used++;
	s->live_bytes += slab_slot_bytes(slab->class);
	s->staged_pages += slab->staging != 0;
	if (slab_is_full(slab)) {
		slabs_unlist(s, n);
		slabs_push_full(s, n);
	} else if (slab->next && !slab_has_held_room(slab)) {
		slabs_unlist(s, n);
		slabs_push_partial(s, n);
	}
}

/* From the first slab of the class with a free slot, grown if necessary.  Where it may not grow, one
 * that fell empty is carved again: its memory is held already. */
static int alloc_in_class(struct slabs *s, unsigned class, unsigned flags, uint32_t *ref)
{
	uint32_t n = s->partial[class].first;
	uint32_t slot = n ? slab_lowest_free(&s->slab[n]) : 0;
	int err = n ? slabs_grow(s, n, payload_offset(class, slot + 1), flags) : 0;

	if (!n || (err && err != -EAGAIN && s->empty.first)) {
		err = slabs_carve(s, class, 0, payload_offset(class, 1), flags);
		n = s->partial[class].first;
		slot = 0;
	}
	if (err)
		return err;
	take(s, n, slot);
	*ref = ref_of(n, slot);
	return 0;
}

/* Where no slab may grow, a longer slot that is free in held memory will do; not of the class `longest`
 * or a longer one, 0: of any. */
static bool alloc_longer(struct slabs *s, unsigned class, unsigned longest, uint32_t *ref)
{
	while (--class > longest) {
		uint32_t n = s->partial[class].first;
		if (n && slab_has_held_room(&s->slab[n])) {
			uint32_t slot = slab_lowest_free(&s->slab[n]);
			take(s, n, slot);
			*ref = ref_of(n, slot);
			return true;
		}
	}
	return false;
}

static int alloc_trimming(struct slabs *s, unsigned class, unsigned flags, uint32_t *ref)
{
	if (flags & SLOTS_NOWAIT)
		return -EAGAIN;
	slabs_trim(s);
	return alloc_in_class(s, class, flags, ref);
}

int slots_alloc(struct slabs *s, unsigned length, unsigned flags, uint32_t *ref)
{
	unsigned class = class_for(length);
	int err = slabs_lock(s, flags);

	if (err)
		return err;
	if (s->used_bytes > s->limit && !(flags & (SLOTS_NOGROW | SLOTS_SETTLE))) {
		err = -ENOSPC;                 /* the limit was lowered: nothing more gets in */
	} else {
		err = alloc_in_class(s, class, flags, ref);
		if ((err == -ENOSPC || err == -ENOMEM) && s->recarved_at && !(flags & SLOTS_NOGROW))
			err = alloc_trimming(s, class, flags, ref);
		if (err && err != -EAGAIN && !(flags & SLOTS_NOGROW) &&
		    alloc_longer(s, class, 0, ref))
			err = 0;
	}
	pthread_mutex_unlock(&s->mutex);
	return err;
}

/* Whether a put of any page finds a slab also after one more has been begun, or grown: an empty one, or
 * by the limit for new pages and what the host has left. */
static bool leaves_a_slab(const struct slabs *s)
{
	uint64_t two = 2ull * SLAB_BYTES;

	return s->empty_bytes >= two ||
	       (slabs_within_limit(s, two, 0) && headroom_has(s->headroom, two));
}

/* Where memory is short it takes only what is held and free: a put that would have taken that finds
 * the longer slot that the page leaves. */
int slots_alloc_shorter(struct slabs *s, unsigned length, unsigned class, uint32_t *ref)
{
	pthread_mutex_lock(&s->mutex);
	int err = alloc_in_class(s, class_for(length), leaves_a_slab(s) ? 0 : SLOTS_NOGROW, ref);
	if (err && alloc_longer(s, class_for(length), class, ref))
		err = 0;
	pthread_mutex_unlock(&s->mutex);
	return err;
}

/* So few pages are put with more locks held than ours: who fills a whole slab touches it himself. */
#define FEW_PAGES 2u

/* A whole slab at a time: its pages come in a burst, and one fallocate is cheaper than four.  Where
 * it held no memory it is `*fresh`. */
static int carve_staging(struct slabs *s, enum tmem_compress compress, unsigned flags,
			 uint32_t *fresh)
{
	uint64_t slab_and_copies = 2ull * SLAB_BYTES, before = s->used_bytes;

	/* The last 1 % is too little for staging: there a put over a page compresses it at once. */
	if (!slabs_within_limit(s, slab_and_copies + STAGING_SPARES,
				flags & ~(unsigned)SLOTS_REPLACE))
		return -ENOSPC;
	int err = slabs_carve(s, CLASS_RAW, (uint8_t)(compress + 1), SLAB_BYTES, flags);
	if (!err && s->used_bytes > before)
		*fresh = s->staging[compress].first;
	return err;
}

int slots_alloc_staged(struct slabs *s, enum tmem_compress compress, unsigned n, unsigned flags,
		       uint32_t *refs)
{
	struct list *open = &s->staging[compress];
	uint32_t fresh = 0;
	int got = 0, err = slabs_lock(s, flags);

	if (err)
		return err;
	while ((unsigned)got < n && s->used_bytes <= s->limit) {
		if (!open->first && (err = carve_staging(s, compress, flags, &fresh)))
			break;
		uint32_t slab = open->first, slot = slab_lowest_free(&s->slab[slab]);
		take(s, slab, slot);
		refs[got++] = ref_of(slab, slot);
	}
	pthread_mutex_unlock(&s->mutex);
	/* A slot of it is taken and not live yet, so that it stays what it is. */
	if (fresh && got && n <= FEW_PAGES)
		arena_touch(s->arena, fresh);
	return !got && err == -EAGAIN ? err : got;
}

/* New pages may be among them, so none of them may use the last 1 % of the limit. */
int slots_alloc_raw(struct slabs *s, unsigned n, unsigned flags, uint32_t *refs)
{
	int got = 0, err = slabs_lock(s, flags);

	if (err)
		return err;
	while ((unsigned)got < n && s->used_bytes <= s->limit && !err) {
		err = alloc_in_class(s, CLASS_RAW, flags & ~(unsigned)SLOTS_REPLACE, &refs[got]);
		got += !err;
	}
	pthread_mutex_unlock(&s->mutex);
	return !got && err == -EAGAIN ? err : got;
}

/* Where a slab belongs after a slot of it was released. */
static void update_place(struct slabs *s, uint32_t n, bool had_room)
{
	struct slab *slab = &s->slab[n];

	if (slab->place == MOVING)
		return;
	if (slab->used == 0) {
		slabs_unlist(s, n);
		slabs_push_empty(s, n, coarse_ns());
	} else if (slab->place == FULL || !had_room) {
		slabs_unlist(s, n);
		slabs_push_partial(s, n);
	}
}

static void release(struct slabs *s, uint32_t ref)
{
	uint32_t n = slab_of(ref), slot = slot_in_slab(ref);
	struct slab *slab = &s->slab[n];
	bool had_room = slab->place != FULL && slab_has_held_room(slab);

	slab->taken[slot / 64] &= ~(1ull << slot % 64);
	slab->used--;
	s->live_bytes -= slab_slot_bytes(slab->class);
	s->staged_pages -= slab->staging != 0;
	update_place(s, n, had_room);
}

void slots_release_all(struct slabs *s, const uint32_t *refs, unsigned n)
{
	if (!n)
		return;
	pthread_mutex_lock(&s->mutex);
	for (unsigned i = 0; i < n; i++)
		release(s, refs[i]);
	pthread_mutex_unlock(&s->mutex);
}

void slots_release(struct slabs *s, uint32_t ref)
{
	slots_release_all(s, &ref, 1);
}

bool slots_taken(struct slabs *s, uint32_t ref)
{
	const struct slab *slab = &s->slab[slab_of(ref)];
	uint32_t slot = slot_in_slab(ref);

	pthread_mutex_lock(&s->mutex);
	bool taken = slab->taken && (slab->taken[slot / 64] >> slot % 64 & 1);
	pthread_mutex_unlock(&s->mutex);
	return taken;
}
