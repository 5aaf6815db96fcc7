/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE                    /* pthread_cond_clockwait */
#include "slabs.h"

#include <errno.h>
#include <stdlib.h>

#include "clock.h"

/* Slabs that fell empty are kept this long: a fresh one costs a fallocate, a punch and the
 * first touches (30 us and 2 us a page). */
#define KEEP_EMPTY_NS 1000000000ull

static void list_push(struct slabs *s, struct list *l, uint32_t n, bool front)
{
	struct slab *slab = &s->slab[n];

	slab->next = front ? l->first : 0;
	slab->prev = front ? 0 : l->last;
	if (slab->next)
		s->slab[slab->next].prev = n;
	else
		l->last = n;
	if (slab->prev)
		s->slab[slab->prev].next = n;
	else
		l->first = n;
}

static void list_remove(struct slabs *s, struct list *l, uint32_t n)
{
	struct slab *slab = &s->slab[n];

	if (slab->next)
		s->slab[slab->next].prev = slab->prev;
	else
		l->last = slab->prev;
	if (slab->prev)
		s->slab[slab->prev].next = slab->next;
	else
		l->first = slab->next;
	slab->next = slab->prev = 0;
}

/* All slots free; the bits behind the last one are never free. */
static uint64_t *fresh_bits(unsigned class)
{
	size_t words = slab_words(class);
	unsigned rest = arena_classes()->slots[class] % 64u;
	uint64_t *bits = calloc(words, sizeof *bits);

	if (bits && rest)
		bits[words - 1] = ~0ull << rest;
	return bits;
}

/* The list of a slab with a free slot. */
static struct list *partial_of(struct slabs *s, const struct slab *slab)
{
	return slab->staging ? &s->staging[slab->staging - 1] : &s->partial[slab->class];
}

void slabs_push_partial(struct slabs *s, uint32_t n)
{
	struct slab *slab = &s->slab[n];

	slab->place = PARTIAL;
	list_push(s, partial_of(s, slab), n, slab_has_held_room(slab));
}

void slabs_push_full(struct slabs *s, uint32_t n)
{
	s->slab[n].place = FULL;
	if (!s->slab[n].staging)
		return;
	list_push(s, &s->staged, n, false);
	pthread_cond_signal(&s->staged_more);
}

/* Takes a slab out of its list; one without a free slot is in none, unless it is staged. */
void slabs_unlist(struct slabs *s, uint32_t n)
{
	struct slab *slab = &s->slab[n];

	if (slab->place == PARTIAL)
		list_remove(s, partial_of(s, slab), n);
	else if (slab->place == FULL && slab->staging)
		list_remove(s, &s->staged, n);
}

void slabs_end_staging(struct slabs *s, struct slab *slab)
{
	if (!slab->staging)
		return;
	slab->staging = 0;
	s->staged_bytes -= SLAB_BYTES;
	s->staged_pages -= slab->used;
}

int slabs_init(struct slabs *s, struct arena *arena, struct headroom *headroom)
{
	*s = (struct slabs){.arena = arena,
			    .headroom = headroom,
			    .high = 1,
			    .cap = UINT64_MAX,
			    .used_bytes = arena->front_bytes};
	s->used_max = s->used_bytes;
	s->slab = calloc(arena->slabs, sizeof *s->slab);
	s->free_numbers = calloc(arena->slabs, sizeof *s->free_numbers);
	if (!s->slab || !s->free_numbers) {
		free(s->slab);
		free(s->free_numbers);
		return -ENOMEM;
	}
	pthread_mutex_init(&s->mutex, NULL);
	pthread_cond_init(&s->staged_more, NULL);
	pthread_cond_init(&s->lacks, NULL);
	return 0;
}

void slabs_destroy(struct slabs *s)
{
	for (uint32_t n = 1; n < s->high; n++)
		free(s->slab[n].taken);
	free(s->slab);
	free(s->free_numbers);
	pthread_cond_destroy(&s->lacks);
	pthread_cond_destroy(&s->staged_more);
	pthread_mutex_destroy(&s->mutex);
}

int slabs_lock(struct slabs *s, unsigned flags)
{
	if (flags & SLOTS_NOWAIT)
		return pthread_mutex_trylock(&s->mutex) ? -EAGAIN : 0;
	pthread_mutex_lock(&s->mutex);
	return 0;
}

/* New pages stop 1 % below the limit, so that replacements still find room; and what is staged
 * may need as much again until its copies are made. */
bool slabs_within_limit(const struct slabs *s, uint64_t bytes, unsigned flags)
{
	uint64_t most = flags & (SLOTS_REPLACE | SLOTS_SETTLE) ? s->limit :
			s->limit - s->limit / 100;
	uint64_t aside = flags & SLOTS_SETTLE ? 0 : s->staged_bytes;

	/* The limit was lowered.  A copy may exceed it by one step more, as it frees more. */
	if (flags & SLOTS_SETTLE && s->used_bytes > s->limit)
		return !s->empty_bytes;
	return s->used_bytes + aside + bytes <= most;
}

/* Nor is an empty slab carved for a put while the copies of staged pages may need it. */
static bool leaves_room_for_copies(const struct slabs *s, unsigned flags)
{
	return !s->staged_bytes || flags & SLOTS_SETTLE ||
	       s->used_bytes - s->empty_bytes + s->staged_bytes + SLAB_BYTES <= s->limit;
}

/* With so many bytes more; empty slabs are free. */
/* Under a cap nothing is to get in, so no room is made for it. */
static uint64_t spare_of(const struct slabs *s)
{
	return s->cap < s->asked ? 0 : s->spare;
}

static bool leaves_spare(const struct slabs *s, uint32_t bytes, unsigned flags)
{
	return !(flags & SLOTS_LEAVES_SPARE) ||
	       s->used_bytes - s->empty_bytes + bytes + spare_of(s) <= s->limit;
}

/* What is staged will take about half of what it takes now. */
static int64_t lacking(const struct slabs *s)
{
	return (int64_t)(s->used_bytes - s->empty_bytes - s->staged_bytes / 2 + spare_of(s)) -
	       (int64_t)s->limit;
}

static void count_memory(struct slabs *s, uint64_t bytes)
{
	s->used_bytes += bytes;
	if (s->used_bytes > s->used_max)
		s->used_max = s->used_bytes;
}

/* By whole steps from here on; what is held may end within one, see end_of_pages(). */
int slabs_reserve(struct slabs *s, uint32_t n, uint32_t to, unsigned flags)
{
	struct slab *slab = &s->slab[n];

	to = (to + SLAB_STEP - 1) / SLAB_STEP * SLAB_STEP;
	if (flags & SLOTS_NOGROW)
		return -ENOSPC;
	if (!slabs_within_limit(s, to - slab->reserved, flags) ||
	    !leaves_spare(s, to - slab->reserved, flags))
		return -ENOSPC;
	if (flags & SLOTS_NOWAIT)
		return -EAGAIN;
	if (!headroom_take(s->headroom, to - slab->reserved) ||
	    arena_reserve(s->arena, n, slab->reserved, to))
		return -ENOMEM;
	count_memory(s, to - slab->reserved);
	if (slab->place == EMPTY)
		s->empty_bytes += to - slab->reserved;
	slab->reserved = to;
	if (lacking(s) > 0)
		pthread_cond_signal(&s->lacks);
	return 0;
}

void slabs_push_empty(struct slabs *s, uint32_t n, uint64_t since)
{
	struct slab *slab = &s->slab[n];

	slabs_end_staging(s, slab);
	slab->place = EMPTY;
	slab->emptied_at = since;
	s->empty_bytes += slab->reserved;
	list_push(s, &s->empty, n, false);
}

static void empty_remove(struct slabs *s, uint32_t n)
{
	s->empty_bytes -= s->slab[n].reserved;
	list_remove(s, &s->empty, n);
}

void slabs_put_back(struct slabs *s, uint32_t n)
{
	if (s->slab[n].used == 0)
		slabs_push_empty(s, n, coarse_ns());
	else if (slab_is_full(&s->slab[n]))
		slabs_push_full(s, n);
	else
		slabs_push_partial(s, n);
}

/* A slab that holds memory but no page, or a number without memory; 0 when there is none. */
static uint32_t next_empty(struct slabs *s)
{
	if (s->empty.first)
		return s->empty.first;
	if (s->n_free)
		return s->free_numbers[s->n_free - 1];
	return s->high < s->arena->slabs ? s->high : 0;
}

/* With its memory up to `to` reserved; `staging` as in the slab. */
int slabs_carve(struct slabs *s, unsigned class, uint8_t staging, uint32_t to, unsigned flags)
{
	uint32_t n = next_empty(s);
	struct slab *slab = &s->slab[n];

	if (!n || (flags & SLOTS_NOGROW) || !leaves_room_for_copies(s, flags) ||
	    !leaves_spare(s, slab->reserved > to ? slab->reserved : to, flags))
		return -ENOSPC;
	uint64_t *bits = fresh_bits(class);
	if (!bits)
		return -ENOMEM;
	int err = slabs_grow(s, n, to, flags);
	if (err) {
		free(bits);
		return err;
	}
	if (slab->place == EMPTY && slab->reserved > to && !staging)
		s->recarved_at = coarse_ns();
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
	slabs_push_partial(s, n);
	if (lacking(s) > 0)
		pthread_cond_signal(&s->lacks);
	return 0;
}

static uint32_t end_of_highest(const struct slab *slab)
{
	uint32_t slot = arena_classes()->slots[slab->class];

	while (slot > 0 && !(slab->taken[(slot - 1) / 64] >> (slot - 1) % 64 & 1))
		slot--;
	return payload_offset(slab->class, slot);
}

/* To the end of the page and no further: after a restart nobody knows whether a step was reserved
 * in full. */
static uint32_t end_of_pages(const struct slab *slab)
{
	return (end_of_highest(slab) + TMEM_PAGE - 1) / TMEM_PAGE * TMEM_PAGE;
}

/* Memory behind the highest slot that is taken, to the page.  A fresh slab grows by steps, one that
 * fell empty is carved again with all it holds, and up to 60 KiB for each class is much in a small
 * pool: with steps 1.053 times zram's memory at 29 MiB, and 1.04 with pages. */
static void trim_tail(struct slabs *s, uint32_t n)
{
	struct slab *slab = &s->slab[n];
	uint32_t end = end_of_pages(slab);
	uint64_t start = (uint64_t)n * SLAB_BYTES;

	if (end >= slab->reserved || arena_punch(s->arena, start + end, start + slab->reserved))
		return;
	s->used_bytes -= slab->reserved - end;
	slab->reserved = end;
	slabs_unlist(s, n);
	slabs_push_partial(s, n);
}

/* Only the slab that a class takes its next slot from has much of a tail. */
void slabs_trim(struct slabs *s)
{
	s->recarved_at = 0;
	for (unsigned class = 1; class <= arena_classes()->count; class++)
		if (s->partial[class].first)
			trim_tail(s, s->partial[class].first);
}

/* Takes an empty slab out of its list and its class; 0: there is none old enough. */
static uint32_t take_empty(struct slabs *s, bool all, uint64_t before)
{
	pthread_mutex_lock(&s->mutex);
	uint32_t n = s->empty.first;
	struct slab *slab = &s->slab[n];
	if (!all && slab->emptied_at > before)
		n = 0;
	if (n) {
		empty_remove(s, n);
		slab->place = NOWHERE;
		slab->class = 0;
		free(slab->taken);
		slab->taken = NULL;
	}
	pthread_mutex_unlock(&s->mutex);
	return n;
}

/* Rule R6: class 0 first, then the hole.  The punch is outside the mutex: until it is done the
 * slab is in no list. */
static bool punch_whole(struct slabs *s, uint32_t n)
{
	struct slab *slab = &s->slab[n];
	uint64_t start = (uint64_t)n * SLAB_BYTES;

	arena_uncarve(s->arena, n);
	bool gone = arena_punch(s->arena, start, start + SLAB_BYTES) == 0;

	pthread_mutex_lock(&s->mutex);
	if (gone) {
		s->used_bytes -= slab->reserved;
		slab->reserved = 0;
		s->free_numbers[s->n_free++] = n;
	} else {
		slabs_push_empty(s, n, coarse_ns());
	}
	pthread_mutex_unlock(&s->mutex);
	return gone;
}

static void give_back_empty(struct slabs *s, bool all)
{
	uint64_t before = coarse_ns() - KEEP_EMPTY_NS;
	uint32_t n;

	while ((n = take_empty(s, all, before)) && punch_whole(s, n))
		;
}

void slabs_give_back(struct slabs *s, bool all)
{
	give_back_empty(s, all);
	pthread_mutex_lock(&s->mutex);
	headroom_look(s->headroom);
	if (s->recarved_at && (all || s->recarved_at < coarse_ns() - KEEP_EMPTY_NS))
		slabs_trim(s);
	pthread_mutex_unlock(&s->mutex);
}

int slabs_adopt(struct slabs *s, uint32_t n, unsigned class)
{
	struct slab *slab = &s->slab[n];

	slab->taken = fresh_bits(class);
	if (!slab->taken)
		return -ENOMEM;
	slab->class = (uint8_t)class;
	if (s->high <= n)
		s->high = n + 1;
	return 0;
}

void slabs_mark(struct slabs *s, uint32_t ref, bool taken)
{
	struct slab *slab = &s->slab[slab_of(ref)];
	uint64_t bit = 1ull << slot_in_slab(ref) % 64;
	uint64_t *word = &slab->taken[slot_in_slab(ref) / 64];

	if (taken) {
		*word |= bit;
		slab->used++;
		s->live_bytes += slab_slot_bytes(slab->class);
	} else {
		*word &= ~bit;
		slab->used--;
		s->live_bytes -= slab_slot_bytes(slab->class);
	}
}

/* All memory outside of slabs with a live slot is given back by R6, also where there seems to be
 * none: SEEK_DATA does not report what was allocated and never written. */
void slabs_adopt_done(struct slabs *s)
{
	uint64_t from = s->arena->front_bytes;

	for (uint32_t n = 1; n < s->high; n++) {
		struct slab *slab = &s->slab[n];
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
			slabs_push_partial(s, n);
	}
	arena_punch(s->arena, from, (uint64_t)s->arena->slabs * SLAB_BYTES);
	s->used_max = s->used_bytes;
}

uint64_t slabs_over_limit(struct slabs *s)
{
	pthread_mutex_lock(&s->mutex);
	uint64_t over = s->used_bytes > s->limit ? s->used_bytes - s->limit : 0;
	pthread_mutex_unlock(&s->mutex);
	return over;
}

void slabs_set_spare(struct slabs *s, uint64_t bytes)
{
	pthread_mutex_lock(&s->mutex);
	s->spare = bytes;
	pthread_mutex_unlock(&s->mutex);
}

int64_t slabs_lacking(struct slabs *s)
{
	pthread_mutex_lock(&s->mutex);
	int64_t bytes = lacking(s);
	pthread_mutex_unlock(&s->mutex);
	return bytes;
}

int64_t slabs_wait_lacking(struct slabs *s, unsigned milliseconds)
{
	struct timespec end = monotonic_in(milliseconds);
	int err = 0;

	pthread_mutex_lock(&s->mutex);
	while (lacking(s) <= 0 && !s->woken && !err)
		err = pthread_cond_clockwait(&s->lacks, &s->mutex, CLOCK_MONOTONIC, &end);
	s->woken = false;
	int64_t bytes = lacking(s);
	pthread_mutex_unlock(&s->mutex);
	return bytes;
}

void slabs_wake(struct slabs *s)
{
	pthread_mutex_lock(&s->mutex);
	s->woken = true;
	pthread_cond_signal(&s->lacks);
	pthread_mutex_unlock(&s->mutex);
}

/* Under the mutex. */
static void keep_lower(struct slabs *s)
{
	s->limit = s->asked < s->cap ? s->asked : s->cap;
}

void slabs_set_limit(struct slabs *s, uint64_t bytes)
{
	pthread_mutex_lock(&s->mutex);
	s->asked = bytes;
	keep_lower(s);
	pthread_mutex_unlock(&s->mutex);
}

void slabs_set_cap(struct slabs *s, uint64_t bytes)
{
	pthread_mutex_lock(&s->mutex);
	s->cap = bytes;
	keep_lower(s);
	pthread_mutex_unlock(&s->mutex);
}

void slabs_set_headroom(struct slabs *s, uint64_t host_reserve, uint64_t shm_reserve,
			const int (*cgroups)[CGROUP_FILES], size_t n)
{
	pthread_mutex_lock(&s->mutex);
	headroom_set(s->headroom, host_reserve, shm_reserve, s->arena->fd, cgroups, n);
	pthread_mutex_unlock(&s->mutex);
}

void slabs_set_aside(struct slabs *s, uint64_t bytes)
{
	pthread_mutex_lock(&s->mutex);
	headroom_set_aside(s->headroom, bytes);
	pthread_mutex_unlock(&s->mutex);
}

uint64_t slabs_room(struct slabs *s, int *limiter)
{
	pthread_mutex_lock(&s->mutex);
	uint64_t room = headroom_room(s->headroom, limiter);
	pthread_mutex_unlock(&s->mutex);
	return room;
}

uint64_t slabs_owed(struct slabs *s)
{
	pthread_mutex_lock(&s->mutex);
	uint64_t owed = headroom_owed(s->headroom);
	pthread_mutex_unlock(&s->mutex);
	return owed;
}

int slabs_reserve_table(struct slabs *s, size_t bytes)
{
	pthread_mutex_lock(&s->mutex);
	uint64_t before = s->arena->front_bytes;
	int err = arena_reserve_user_table(s->arena, bytes);
	count_memory(s, s->arena->front_bytes - before);
	pthread_mutex_unlock(&s->mutex);
	return err;
}

void slabs_get_stats(struct slabs *s, struct tmem_stats *to)
{
	pthread_mutex_lock(&s->mutex);
	to->mem_limit = s->asked;
	to->mem_used_total = s->used_bytes;
	to->mem_used_max = s->used_max;
	to->live_slot_bytes = s->live_bytes;
	to->staged_pages = s->staged_pages;
	to->metadata_size = (uint64_t)s->high * sizeof(struct slab);
	pthread_mutex_unlock(&s->mutex);
}
