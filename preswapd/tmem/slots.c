#define _GNU_SOURCE
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* Slabs that fell empty are kept this long: a fresh one costs a fallocate, a punch and the
 * first touches (30 us and 2 us a page). */
#define KEEP_EMPTY_NS 1000000000ull
/* The mover starts when less than this share of the held memory is live data ... */
#define SPARSE_PERCENT 85u
/* ... and leaves alone a pool so small that a slab for each class is most of it. */
#define SPARSE_FROM_BYTES (1u << 20)
/* Staging leaves so much free that its pages' copies find a slab of their class to begin. */
#define STAGING_SPARES (2u << 20)

enum place { NOWHERE, PARTIAL, FULL, EMPTY, MOVING };

static void list_push(struct slots *s, struct list *l, uint32_t n, bool front)
{
	struct slab *slab = &s->slabs[n];

	slab->next = front ? l->first : 0;
	slab->prev = front ? 0 : l->last;
	if (slab->next)
		s->slabs[slab->next].prev = n;
	else
		l->last = n;
	if (slab->prev)
		s->slabs[slab->prev].next = n;
	else
		l->first = n;
}

static void list_remove(struct slots *s, struct list *l, uint32_t n)
{
	struct slab *slab = &s->slabs[n];

	if (slab->next)
		s->slabs[slab->next].prev = slab->prev;
	else
		l->last = slab->prev;
	if (slab->prev)
		s->slabs[slab->prev].next = slab->next;
	else
		l->first = slab->next;
	slab->next = slab->prev = 0;
}

static uint32_t slot_bytes(unsigned class)
{
	return HEADER_BYTES + arena_classes()->bytes[class];
}

static size_t words_for(unsigned class)
{
	return (arena_classes()->slots[class] + 63u) / 64u;
}

/* All slots free; the bits behind the last one are never free. */
static uint64_t *fresh_bits(unsigned class)
{
	size_t words = words_for(class);
	unsigned rest = arena_classes()->slots[class] % 64u;
	uint64_t *bits = calloc(words, sizeof *bits);

	if (bits && rest)
		bits[words - 1] = ~0ull << rest;
	return bits;
}

static uint32_t lowest_free(const struct slab *slab)
{
	for (size_t i = 0; i < words_for(slab->class); i++)
		if (~slab->taken[i])
			return (uint32_t)(i * 64) + (uint32_t)__builtin_ctzll(~slab->taken[i]);
	return UINT32_MAX;
}

static bool is_reserved(const struct slab *slab, uint32_t slot)
{
	return payload_offset(slab->class, slot + 1) <= slab->reserved;
}

/* How many slots lie in held memory. */
static uint32_t reserved_slots(const struct slab *slab)
{
	uint32_t front = payload_offset(slab->class, 0), n = arena_classes()->slots[slab->class];
	uint32_t held = slab->reserved < front ? 0 :
			(slab->reserved - front) / arena_classes()->bytes[slab->class];

	return held < n ? held : n;
}

static bool has_reserved_room(const struct slab *slab)
{
	return is_reserved(slab, lowest_free(slab));
}

/* The list of a slab with a free slot. */
static struct list *partial_of(struct slots *s, const struct slab *slab)
{
	return slab->staging ? &s->staging[slab->staging - 1] : &s->partial[slab->class];
}

static void push_partial(struct slots *s, uint32_t n)
{
	struct slab *slab = &s->slabs[n];

	slab->place = PARTIAL;
	list_push(s, partial_of(s, slab), n, has_reserved_room(slab));
}

static void push_full(struct slots *s, uint32_t n)
{
	s->slabs[n].place = FULL;
	if (!s->slabs[n].staging)
		return;
	list_push(s, &s->staged, n, false);
	pthread_cond_signal(&s->staged_more);
}

static bool is_full(const struct slab *slab)
{
	return slab->used == arena_classes()->slots[slab->class];
}

/* Out of its list: one without a free slot is in none, unless it is staged. */
static void unlist(struct slots *s, uint32_t n)
{
	struct slab *slab = &s->slabs[n];

	if (slab->place == PARTIAL)
		list_remove(s, partial_of(s, slab), n);
	else if (slab->place == FULL && slab->staging)
		list_remove(s, &s->staged, n);
}

static void end_staging(struct slots *s, struct slab *slab)
{
	if (!slab->staging)
		return;
	slab->staging = 0;
	s->staged_bytes -= SLAB_BYTES;
	s->staged_pages -= slab->used;
}

int slots_init(struct slots *s, struct arena *arena)
{
	*s = (struct slots){.arena = arena, .high = 1, .used_bytes = arena->front_bytes};
	s->used_max = s->used_bytes;
	headroom_init(&s->headroom);
	s->slabs = calloc(arena->slabs, sizeof *s->slabs);
	s->free_numbers = calloc(arena->slabs, sizeof *s->free_numbers);
	if (!s->slabs || !s->free_numbers) {
		free(s->slabs);
		free(s->free_numbers);
		return -ENOMEM;
	}
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->staged_more, NULL);
	return 0;
}

void slots_destroy(struct slots *s)
{
	for (uint32_t n = 1; n < s->high; n++)
		free(s->slabs[n].taken);
	free(s->slabs);
	free(s->free_numbers);
	headroom_close(&s->headroom);
	pthread_cond_destroy(&s->staged_more);
	pthread_mutex_destroy(&s->mutex);
}

/* New pages stop 1 % below the limit, so that replacements still find room; and what is staged
 * may need as much again until its copies stand. */
static bool within_limit(const struct slots *s, uint64_t bytes, unsigned flags)
{
	uint64_t most = flags & (SLOTS_REPLACE | SLOTS_UNSTAGE) ? s->limit :
			s->limit - s->limit / 100;
	uint64_t aside = flags & SLOTS_UNSTAGE ? 0 : s->staged_bytes;

	/* The limit was lowered: a step more, for much less. */
	if (flags & SLOTS_UNSTAGE && s->used_bytes > s->limit)
		return !s->empty_bytes;
	return s->used_bytes + aside + bytes <= most;
}

/* Also an empty slab is not cut for a put while the copies of staged pages may need it. */
static bool leaves_room_for_copies(const struct slots *s, unsigned flags)
{
	return !s->staged_bytes || flags & SLOTS_UNSTAGE ||
	       s->used_bytes - s->empty_bytes + s->staged_bytes + SLAB_BYTES <= s->limit;
}

/* Reserves a slab's memory up to `to`, which may be held already although no step ends there (see
 * end_of_pages()): 0, or why not. */
static int grow(struct slots *s, uint32_t n, uint32_t to, unsigned flags)
{
	struct slab *slab = &s->slabs[n];

	if (to <= slab->reserved)
		return 0;
	to = (to + SLAB_STEP - 1) / SLAB_STEP * SLAB_STEP;
	if (flags & SLOTS_NOGROW)
		return -ENOSPC;
	if (!within_limit(s, to - slab->reserved, flags))
		return -ENOSPC;
	if (flags & SLOTS_NOWAIT)
		return -EAGAIN;
	if (!headroom_take(&s->headroom, to - slab->reserved) ||
	    arena_reserve(s->arena, n, slab->reserved, to))
		return -ENOMEM;
	s->used_bytes += to - slab->reserved;
	if (s->used_bytes > s->used_max)
		s->used_max = s->used_bytes;
	if (slab->place == EMPTY)
		s->empty_bytes += to - slab->reserved;
	slab->reserved = to;
	return 0;
}

static void empty_push(struct slots *s, uint32_t n, uint64_t since)
{
	struct slab *slab = &s->slabs[n];

	end_staging(s, slab);
	slab->place = EMPTY;
	slab->emptied_at = since;
	s->empty_bytes += slab->reserved;
	list_push(s, &s->empty, n, false);
}

static void empty_remove(struct slots *s, uint32_t n)
{
	s->empty_bytes -= s->slabs[n].reserved;
	list_remove(s, &s->empty, n);
}

/* A slab that holds memory but no page, or a number without memory; 0 when there is none. */
static uint32_t next_empty(struct slots *s)
{
	if (s->empty.first)
		return s->empty.first;
	if (s->n_free)
		return s->free_numbers[s->n_free - 1];
	return s->high < s->arena->slabs ? s->high : 0;
}

/* With its memory up to `to` reserved; `staging` as in the slab. */
static int carve(struct slots *s, unsigned class, uint8_t staging, uint32_t to, unsigned flags)
{
	uint32_t n = next_empty(s);
	struct slab *slab = &s->slabs[n];

	if (!n || (flags & SLOTS_NOGROW) || !leaves_room_for_copies(s, flags))
		return -ENOSPC;
	uint64_t *bits = fresh_bits(class);
	if (!bits)
		return -ENOMEM;
	int err = grow(s, n, to, flags);
	if (err) {
		free(bits);
		return err;
	}
	if (slab->place == EMPTY && slab->reserved > to && !staging)
		s->recut_at = coarse_ns();
	if (slab->place == EMPTY)
		empty_remove(s, n);
	else if (s->n_free && s->free_numbers[s->n_free - 1] == n)
		s->n_free--;
	else
		s->high = n + 1;
	free(slab->taken);
	slab->taken = bits;
	slab->class = (uint8_t)class;
	slab->staging = staging;
	slab->used = 0;
	if (staging) {
		s->staged_bytes += SLAB_BYTES;
		pthread_cond_signal(&s->staged_more);
	}
	arena_carve(s->arena, n, class);
	push_partial(s, n);
	return 0;
}

static void take(struct slots *s, uint32_t n, uint32_t slot)
{
	struct slab *slab = &s->slabs[n];

	slab->taken[slot / 64] |= 1ull << slot % 64;
	slab->used++;
	s->live_bytes += slot_bytes(slab->class);
	s->staged_pages += slab->staging != 0;
	if (is_full(slab)) {
		unlist(s, n);
		push_full(s, n);
	} else if (slab->next && !has_reserved_room(slab)) {
		unlist(s, n);
		push_partial(s, n);
	}
}

/* The first slab of the class with room, grown if need be.  Where it may not grow, one that fell
 * empty is cut anew: its memory is held already. */
static int alloc_in_class(struct slots *s, unsigned class, unsigned flags, uint32_t *ref)
{
	uint32_t n = s->partial[class].first;
	uint32_t slot = n ? lowest_free(&s->slabs[n]) : 0;
	int err = n ? grow(s, n, payload_offset(class, slot + 1), flags) : 0;

	if (!n || (err && err != -EAGAIN && s->empty.first)) {
		err = carve(s, class, 0, payload_offset(class, 1), flags);
		n = s->partial[class].first;
		slot = 0;
	}
	if (err)
		return err;
	take(s, n, slot);
	*ref = ref_of(n, slot);
	return 0;
}

/* When nothing may grow, a longer slot that lies free will do. */
static bool alloc_longer(struct slots *s, unsigned class, uint32_t *ref)
{
	while (--class > 0) {
		uint32_t n = s->partial[class].first;
		if (n && has_reserved_room(&s->slabs[n])) {
			uint32_t slot = lowest_free(&s->slabs[n]);
			take(s, n, slot);
			*ref = ref_of(n, slot);
			return true;
		}
	}
	return false;
}

static uint32_t end_of_highest(const struct slab *slab)
{
	uint32_t slot = arena_classes()->slots[slab->class];

	while (slot > 0 && !(slab->taken[(slot - 1) / 64] >> (slot - 1) % 64 & 1))
		slot--;
	return payload_offset(slab->class, slot);
}

/* To the page, and no further: nobody knows after a restart whether a step was reserved in full. */
static uint32_t end_of_pages(const struct slab *slab)
{
	return (end_of_highest(slab) + TMEM_PAGE - 1) / TMEM_PAGE * TMEM_PAGE;
}

/* Memory behind the highest slot that is taken, to the page.  A fresh slab grows by steps, one that
 * fell empty is cut anew with all it holds, and up to 60 KiB for each class is much in a small
 * pool: with steps 1.053 times zram's memory at 29 MiB, and 1.04 with pages. */
static void trim_tail(struct slots *s, uint32_t n)
{
	struct slab *slab = &s->slabs[n];
	uint32_t end = end_of_pages(slab);
	uint64_t start = (uint64_t)n * SLAB_BYTES;

	if (end >= slab->reserved || arena_punch(s->arena, start + end, start + slab->reserved))
		return;
	s->used_bytes -= slab->reserved - end;
	slab->reserved = end;
	unlist(s, n);
	push_partial(s, n);
}

/* Only the slab that a class puts into has much of a tail. */
static void trim_tails(struct slots *s)
{
	s->recut_at = 0;
	for (unsigned class = 1; class <= arena_classes()->count; class++)
		if (s->partial[class].first)
			trim_tail(s, s->partial[class].first);
}

static int lock(struct slots *s, unsigned flags)
{
	if (flags & SLOTS_NOWAIT)
		return pthread_mutex_trylock(&s->mutex) ? -EAGAIN : 0;
	pthread_mutex_lock(&s->mutex);
	return 0;
}

static int alloc_trimming(struct slots *s, unsigned class, unsigned flags, uint32_t *ref)
{
	if (flags & SLOTS_NOWAIT)
		return -EAGAIN;
	trim_tails(s);
	return alloc_in_class(s, class, flags, ref);
}

int slots_alloc(struct slots *s, unsigned length, unsigned flags, uint32_t *ref)
{
	unsigned class = arena_classes()->for_length[(length + 15) / 16];
	int err = lock(s, flags);

	if (err)
		return err;
	if (s->used_bytes > s->limit && !(flags & (SLOTS_NOGROW | SLOTS_UNSTAGE))) {
		err = -ENOSPC;                 /* the limit was lowered: nothing more gets in */
	} else {
		err = alloc_in_class(s, class, flags, ref);
		if ((err == -ENOSPC || err == -ENOMEM) && s->recut_at && !(flags & SLOTS_NOGROW))
			err = alloc_trimming(s, class, flags, ref);
		if (err && err != -EAGAIN && !(flags & SLOTS_NOGROW) &&
		    alloc_longer(s, class, ref))
			err = 0;
	}
	pthread_mutex_unlock(&s->mutex);
	return err;
}

/* A whole slab at a time: its pages come in a burst, and one fallocate is cheaper than four. */
static int carve_staging(struct slots *s, enum tmem_compress how, unsigned flags)
{
	uint64_t slab_and_copies = 2ull * SLAB_BYTES;

	/* What replaces a page compresses it at once: the last 1 % is small. */
	if (!within_limit(s, slab_and_copies + STAGING_SPARES, flags & ~(unsigned)SLOTS_REPLACE))
		return -ENOSPC;
	return carve(s, CLASS_RAW, (uint8_t)(how + 1), SLAB_BYTES, flags);
}

int slots_alloc_staged(struct slots *s, enum tmem_compress how, unsigned n, unsigned flags,
		       uint32_t *refs)
{
	struct list *open = &s->staging[how];
	int got = 0, err = lock(s, flags);

	if (err)
		return err;
	while ((unsigned)got < n && s->used_bytes <= s->limit) {
		if (!open->first && (err = carve_staging(s, how, flags)))
			break;
		uint32_t slab = open->first, slot = lowest_free(&s->slabs[slab]);
		take(s, slab, slot);
		refs[got++] = ref_of(slab, slot);
	}
	pthread_mutex_unlock(&s->mutex);
	return !got && err == -EAGAIN ? err : got;
}

/* New pages may be among them, so none takes of the last 1 %. */
int slots_alloc_raw(struct slots *s, unsigned n, unsigned flags, uint32_t *refs)
{
	int got = 0, err = lock(s, flags);

	if (err)
		return err;
	while ((unsigned)got < n && s->used_bytes <= s->limit && !err) {
		err = alloc_in_class(s, CLASS_RAW, flags & ~(unsigned)SLOTS_REPLACE, &refs[got]);
		got += !err;
	}
	pthread_mutex_unlock(&s->mutex);
	return !got && err == -EAGAIN ? err : got;
}

/* The slab behind a slot that was given free finds its new place. */
static void replace_slab(struct slots *s, uint32_t n, bool had_room)
{
	struct slab *slab = &s->slabs[n];

	if (slab->place == MOVING)
		return;
	if (slab->used == 0) {
		unlist(s, n);
		empty_push(s, n, coarse_ns());
	} else if (slab->place == FULL || !had_room) {
		unlist(s, n);
		push_partial(s, n);
	}
}

static void release(struct slots *s, uint32_t ref)
{
	uint32_t n = slab_of(ref), slot = slot_in_slab(ref);
	struct slab *slab = &s->slabs[n];
	bool had_room = slab->place != FULL && has_reserved_room(slab);

	slab->taken[slot / 64] &= ~(1ull << slot % 64);
	slab->used--;
	s->live_bytes -= slot_bytes(slab->class);
	s->staged_pages -= slab->staging != 0;
	replace_slab(s, n, had_room);
}

void slots_release_all(struct slots *s, const uint32_t *refs, unsigned n)
{
	if (!n)
		return;
	pthread_mutex_lock(&s->mutex);
	for (unsigned i = 0; i < n; i++)
		release(s, refs[i]);
	pthread_mutex_unlock(&s->mutex);
}

void slots_release(struct slots *s, uint32_t ref)
{
	slots_release_all(s, &ref, 1);
}

/* Rule R6: class 0 first, then the hole.  The punch is outside the mutex: the slab is in no list
 * meanwhile. */
static void give_back_empty(struct slots *s, bool all)
{
	uint64_t before = coarse_ns() - KEEP_EMPTY_NS;

	for (;;) {
		pthread_mutex_lock(&s->mutex);
		uint32_t n = s->empty.first;
		struct slab *slab = &s->slabs[n];
		if (!n || (!all && slab->emptied_at > before)) {
			pthread_mutex_unlock(&s->mutex);
			return;
		}
		empty_remove(s, n);
		slab->place = NOWHERE;
		slab->class = 0;
		free(slab->taken);
		slab->taken = NULL;
		pthread_mutex_unlock(&s->mutex);

		uint64_t start = (uint64_t)n * SLAB_BYTES;
		arena_uncarve(s->arena, n);
		bool gone = arena_punch(s->arena, start, start + SLAB_BYTES) == 0;

		pthread_mutex_lock(&s->mutex);
		if (gone) {
			s->used_bytes -= slab->reserved;
			slab->reserved = 0;
			s->free_numbers[s->n_free++] = n;
		} else {
			empty_push(s, n, coarse_ns());
		}
		pthread_mutex_unlock(&s->mutex);
		if (!gone)
			return;
	}
}

void slots_give_back(struct slots *s, bool all)
{
	give_back_empty(s, all);
	pthread_mutex_lock(&s->mutex);
	if (s->recut_at && (all || s->recut_at < coarse_ns() - KEEP_EMPTY_NS))
		trim_tails(s);
	pthread_mutex_unlock(&s->mutex);
}

int slots_adopt(struct slots *s, uint32_t n, unsigned class)
{
	struct slab *slab = &s->slabs[n];

	slab->taken = fresh_bits(class);
	if (!slab->taken)
		return -ENOMEM;
	slab->class = (uint8_t)class;
	if (s->high <= n)
		s->high = n + 1;
	return 0;
}

void slots_mark(struct slots *s, uint32_t ref, bool taken)
{
	struct slab *slab = &s->slabs[slab_of(ref)];
	uint64_t bit = 1ull << slot_in_slab(ref) % 64;
	uint64_t *word = &slab->taken[slot_in_slab(ref) / 64];

	if (taken) {
		*word |= bit;
		slab->used++;
		s->live_bytes += slot_bytes(slab->class);
	} else {
		*word &= ~bit;
		slab->used--;
		s->live_bytes -= slot_bytes(slab->class);
	}
}

/* All that is not in a slab with a live slot is given back by R6, also where nothing seems to
 * be: SEEK_DATA does not report what was allocated and never written. */
void slots_adopt_done(struct slots *s)
{
	uint64_t from = s->arena->front_bytes;

	for (uint32_t n = 1; n < s->high; n++) {
		struct slab *slab = &s->slabs[n];
		uint64_t start = (uint64_t)n * SLAB_BYTES;
		if (!slab->used) {
			if (slab->class)
				arena_uncarve(s->arena, n);
			free(slab->taken);
			*slab = (struct slab){0};
			s->free_numbers[s->n_free++] = n;
			continue;
		}
		arena_punch(s->arena, from, start);
		slab->reserved = end_of_pages(slab);
		s->used_bytes += slab->reserved;
		from = start + slab->reserved;
		if (slab->used == arena_classes()->slots[slab->class])
			slab->place = FULL;
		else
			push_partial(s, n);
	}
	arena_punch(s->arena, from, (uint64_t)s->arena->slabs * SLAB_BYTES);
	s->used_max = s->used_bytes;
}

bool slots_sparse(struct slots *s)
{
	pthread_mutex_lock(&s->mutex);
	uint64_t held = s->used_bytes - s->arena->front_bytes - s->empty_bytes;
	bool sparse = held > SPARSE_FROM_BYTES && s->live_bytes * 100 < held * SPARSE_PERCENT;
	pthread_mutex_unlock(&s->mutex);
	return sparse;
}

uint32_t slots_new_round(struct slots *s)
{
	pthread_mutex_lock(&s->mutex);
	uint32_t round = ++s->rounds;
	pthread_mutex_unlock(&s->mutex);
	return round;
}

/* Free slots in held memory, for each class. */
static void count_room(const struct slots *s, uint64_t room[CLASSES_MAX])
{
	memset(room, 0, CLASSES_MAX * sizeof *room);
	for (uint32_t n = 1; n < s->high; n++)
		if (s->slabs[n].place == PARTIAL && !s->slabs[n].staging)
			room[s->slabs[n].class] += reserved_slots(&s->slabs[n]) - s->slabs[n].used;
}

static bool fits_elsewhere(const struct slab *slab, const uint64_t room[CLASSES_MAX])
{
	return room[slab->class] >= reserved_slots(slab);
}

static uint64_t share_used(const struct slab *slab)
{
	return (uint64_t)slab->used * SLAB_BYTES / arena_classes()->slots[slab->class];
}

/* Keeps `slabs` sorted, the emptiest first, and no longer than `most`. */
static uint32_t insert_emptiest(const struct slots *s, uint32_t *slabs, uint32_t found,
				uint32_t most, uint32_t n)
{
	uint64_t share = share_used(&s->slabs[n]);
	uint32_t at = found < most ? found++ : most;

	for (; at > 0 && share < share_used(&s->slabs[slabs[at - 1]]); at--)
		if (at < most)
			slabs[at] = slabs[at - 1];
	if (at < most)
		slabs[at] = n;
	return found;
}

/* The emptiest slabs whose pages fit into the others of their class, as far as one look can say.
 * Reads 48 bytes a slab, 0.2 ms a GiB, so `most` of them for one look. */
uint32_t slots_take_emptiest(struct slots *s, uint32_t round, uint32_t *slabs, uint32_t most)
{
	uint64_t room[CLASSES_MAX];
	uint32_t found = 0, taken = 0;

	pthread_mutex_lock(&s->mutex);
	count_room(s, room);
	for (uint32_t n = 1; n < s->high; n++) {
		const struct slab *slab = &s->slabs[n];
		if (slab->place == PARTIAL && !slab->staging && slab->round != round &&
		    fits_elsewhere(slab, room))
			found = insert_emptiest(s, slabs, found, most, n);
	}
	for (uint32_t i = 0; i < found; i++) {
		struct slab *slab = &s->slabs[slabs[i]];
		if (!fits_elsewhere(slab, room))
			continue;
		room[slab->class] -= reserved_slots(slab);
		unlist(s, slabs[i]);
		slab->place = MOVING;
		slab->round = round;
		slabs[taken++] = slabs[i];
	}
	pthread_mutex_unlock(&s->mutex);
	return taken;
}

/* A slab that was out of reach; under the mutex. */
static void put_back(struct slots *s, uint32_t n)
{
	if (s->slabs[n].used == 0)
		empty_push(s, n, coarse_ns());
	else if (is_full(&s->slabs[n]))
		push_full(s, n);
	else
		push_partial(s, n);
}

void slots_return(struct slots *s, uint32_t n)
{
	pthread_mutex_lock(&s->mutex);
	put_back(s, n);
	pthread_mutex_unlock(&s->mutex);
}

uint32_t slots_take_staged(struct slots *s, bool also_open)
{
	pthread_mutex_lock(&s->mutex);
	uint32_t n = s->staged.first;
	for (unsigned how = 0; !n && also_open && how < TMEM_NONE; how++)
		n = s->staging[how].first;
	if (n) {
		unlist(s, n);
		s->slabs[n].place = MOVING;
	}
	pthread_mutex_unlock(&s->mutex);
	return n;
}

void slots_return_staged(struct slots *s, uint32_t n, bool tried)
{
	pthread_mutex_lock(&s->mutex);
	if (tried)
		end_staging(s, &s->slabs[n]);
	put_back(s, n);
	pthread_mutex_unlock(&s->mutex);
}

bool slots_wait_staged(struct slots *s, unsigned milliseconds, unsigned for_more)
{
	struct timespec end = monotonic_in(milliseconds);
	int err = 0;

	pthread_mutex_lock(&s->mutex);
	while (!s->staged_bytes && !err)
		err = pthread_cond_clockwait(&s->staged_more, &s->mutex, CLOCK_MONOTONIC, &end);
	end = monotonic_in(for_more);
	while (!s->staged.first && !err)
		err = pthread_cond_clockwait(&s->staged_more, &s->mutex, CLOCK_MONOTONIC, &end);
	bool full = s->staged.first != 0;
	pthread_mutex_unlock(&s->mutex);
	return full;
}

bool slots_stages(const struct slots *s)
{
	return __atomic_load_n(&s->stages, __ATOMIC_RELAXED);
}

uint32_t slots_staged(struct slots *s)
{
	pthread_mutex_lock(&s->mutex);
	uint32_t slabs = (uint32_t)(s->staged_bytes / SLAB_BYTES);
	pthread_mutex_unlock(&s->mutex);
	return slabs;
}

/* Two thirds of what it may take. */
bool slots_staging_presses(struct slots *s)
{
	pthread_mutex_lock(&s->mutex);
	bool presses = !within_limit(s, s->staged_bytes + STAGING_SPARES, 0);
	pthread_mutex_unlock(&s->mutex);
	return presses;
}

void slots_set_staging(struct slots *s, bool on)
{
	__atomic_store_n(&s->stages, on, __ATOMIC_RELAXED);
}

bool slots_taken(struct slots *s, uint32_t ref)
{
	const struct slab *slab = &s->slabs[slab_of(ref)];
	uint32_t slot = slot_in_slab(ref);

	pthread_mutex_lock(&s->mutex);
	bool taken = slab->taken && (slab->taken[slot / 64] >> slot % 64 & 1);
	pthread_mutex_unlock(&s->mutex);
	return taken;
}

uint64_t slots_over_limit(struct slots *s)
{
	pthread_mutex_lock(&s->mutex);
	uint64_t over = s->used_bytes > s->limit ? s->used_bytes - s->limit : 0;
	pthread_mutex_unlock(&s->mutex);
	return over;
}
