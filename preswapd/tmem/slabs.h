/* SPDX-License-Identifier: BSD-3-Clause */
/* The slabs: where each one is, how much memory it holds, and how much all of them may hold.
 *
 *                  carve                    its last free slot is taken
 *   NOWHERE -------------------> PARTIAL ---------------------------------> FULL
 *      ^                         ^  |  ^ <--------------------------------  ^  |
 *      |             carve again |  |  |         a slot is released         |  |
 *      |                         |  |  |                                    |  |
 *      | give_back               |  |  | take, return               return  |  | take
 *      |                         |  |  +-------------> MOVING <-------------+--+
 *      |                         |  |                    |
 *      |                         |  | its last taken     | return, when no slot of it is
 *      |                         |  v slot is released   | taken any more
 *      +------------------------ EMPTY <-----------------+
 *
 *               holds memory    list, not staged    list, staged
 *   NOWHERE     none            none: its number is in free_numbers, or >= high
 *   PARTIAL     for some slots  partial[class]      staging[codec]
 *   FULL        for all slots   none                staged
 *   EMPTY       some            empty               (it is no longer staged)
 *   MOVING      some            none: out of the allocator's reach
 *
 * "take" and "return" are those of victims.c, which takes what is PARTIAL and not staged, and of
 * staging.c, which takes what is staged.  A slab is staged (`staging` is 1 + the codec that its
 * pages wait for) from its carving on until its pages have been compressed or tried.  Recovery puts
 * each slab with live slots where it belongs, and all others are NOWHERE.
 *
 * All of it is private memory, derived from the arena at start.  One mutex guards it, also what
 * slots.c, victims.c and staging.c do.  It is never held together with a page's lock (slots are
 * released after the unlock), so that it may be held across the 15 us of an fallocate.
 */
#ifndef PRESWAPD_SLABS_H
#define PRESWAPD_SLABS_H

#include <pthread.h>

#include "arena.h"
#include "headroom.h"

enum place { NOWHERE, PARTIAL, FULL, EMPTY, MOVING };

struct slab {
	uint32_t next, prev;           /* in its list; 0 ends */
	uint32_t reserved;             /* bytes, from the slab's beginning */
	uint32_t round;                /* the mover's round that took it last */
	uint16_t used;
	uint8_t class;                 /* 0: not carved */
	uint8_t place;
	uint8_t staging;               /* 0, or 1 + the codec that its pages wait for */
	uint64_t emptied_at;           /* ns */
	uint64_t *taken;               /* a bit for each slot */
};

struct list {
	uint32_t first, last;
};

struct slabs {
	struct arena *arena;
	pthread_mutex_t mutex;
	struct slab *slab;
	struct list partial[CLASSES_MAX];  /* those with a free slot in held memory first */
	struct list empty;             /* no slot taken; still holding their memory */
	uint64_t empty_bytes;
	uint64_t recarved_at;          /* ns; when an empty slab was last carved again with more
					* memory than it needs; 0: none was since the last trim */
	struct list staging[TMEM_NONE];    /* for each codec: with a free slot ... */
	struct list staged;            /* ... and without, the oldest first */
	uint64_t staged_bytes, staged_pages;
	bool stages;                   /* atomic */
	pthread_cond_t staged_more;
	uint64_t spare;                /* bytes of the limit that should be free */
	pthread_cond_t lacks;          /* ... and less is */
	bool woken;                    /* who waits for that is to look now */
	uint32_t rounds;
	uint32_t *free_numbers;        /* a stack of slabs without memory */
	uint32_t n_free, high;         /* high: no slab at or above it was ever used */
	uint64_t limit;                /* the lower one of the next two */
	uint64_t asked, cap;
	uint64_t used_bytes, used_max, live_bytes;
	struct headroom *headroom;
};

enum slots_flags {
	SLOTS_REPLACE = TMEM_REPLACE,  /* may use the last 1 % of the limit */
	SLOTS_NOWAIT = TMEM_NOWAIT,    /* -EAGAIN rather than a system call */
	SLOTS_NOGROW = 4,              /* only where memory is already held (the mover) */
	SLOTS_SETTLE = 8,              /* may use what is set aside for staged pages */
	SLOTS_LEAVES_SPARE = 32,       /* for ephemeral pages: not what should be free for others */
};

int slabs_init(struct slabs *, struct arena *, struct headroom *);
void slabs_destroy(struct slabs *);
/* Gives slabs back to the system that have been empty for a second, or `all` empty ones; and looks
 * how much memory there is. */
void slabs_give_back(struct slabs *, bool all);
void slabs_set_limit(struct slabs *, uint64_t bytes);
/* For a while, a lower one; UINT64_MAX: none. */
void slabs_set_cap(struct slabs *, uint64_t bytes);
/* Bytes that are held beyond the limit: it was lowered. */
uint64_t slabs_over_limit(struct slabs *);
/* See tmem_set_spare(). */
void slabs_set_spare(struct slabs *, uint64_t bytes);
int64_t slabs_lacking(struct slabs *);
int64_t slabs_wait_lacking(struct slabs *, unsigned milliseconds);
void slabs_wake(struct slabs *);
/* headroom.h's functions, under the mutex. */
void slabs_set_headroom(struct slabs *, uint64_t host_reserve, uint64_t shm_reserve,
			const int (*cgroups)[CGROUP_FILES], size_t n);
void slabs_set_aside(struct slabs *, uint64_t bytes);
uint64_t slabs_room(struct slabs *, int *limiter);
uint64_t slabs_owed(struct slabs *);
/* Makes room for the user's table, in slab 0: its memory counts too. */
int slabs_reserve_table(struct slabs *, size_t bytes);
/* Fills in what the slabs know; metadata_size is that of the slabs alone. */
void slabs_get_stats(struct slabs *, struct tmem_stats *);

/* Recovery, before anything runs: a slab with live slots is adopted, each slot marked. */
int slabs_adopt(struct slabs *, uint32_t slab, unsigned class);
void slabs_mark(struct slabs *, uint32_t ref, bool taken);
void slabs_adopt_done(struct slabs *);

/* The class of the slab that a slot is in. */
static inline unsigned slab_class(const struct slabs *s, uint32_t ref)
{
	return s->slab[slab_of(ref)].class;
}

/* --- For slots.c, victims.c and staging.c --- */

/* Takes the mutex, for all that follows: 0, or under SLOTS_NOWAIT -EAGAIN. */
int slabs_lock(struct slabs *, unsigned flags);
/* Whether so many bytes more would be within the limit. */
bool slabs_within_limit(const struct slabs *, uint64_t bytes, unsigned flags);
/* A slab's memory up to `to`, which is more than it holds: 0, or -ENOSPC, -ENOMEM, -EAGAIN. */
int slabs_reserve(struct slabs *, uint32_t slab, uint32_t to, unsigned flags);
/* An empty slab, or one without memory, becomes the first partial one of its class.  Its memory up to
 * `to` is reserved; `staging` as in the slab. */
int slabs_carve(struct slabs *, unsigned class, uint8_t staging, uint32_t to, unsigned flags);
/* Gives back what lies behind the highest slot that is taken, in the slab that each class takes its
 * next slot from. */
void slabs_trim(struct slabs *);

/* Out of its list: one without a free slot is in none, unless it is staged. */
void slabs_unlist(struct slabs *, uint32_t slab);
/* Into the list of its new place; `since` in ns. */
void slabs_push_partial(struct slabs *, uint32_t slab);
void slabs_push_full(struct slabs *, uint32_t slab);
void slabs_push_empty(struct slabs *, uint32_t slab, uint64_t since);
/* Puts a slab that was out of reach where it belongs. */
void slabs_put_back(struct slabs *, uint32_t slab);
/* The slab no longer counts as staged. */
void slabs_end_staging(struct slabs *, struct slab *);

static inline uint32_t slab_slot_bytes(unsigned class)
{
	return HEADER_BYTES + arena_classes()->bytes[class];
}

/* Of `taken`. */
static inline size_t slab_words(unsigned class)
{
	return (arena_classes()->slots[class] + 63u) / 64u;
}

static inline uint32_t slab_lowest_free(const struct slab *slab)
{
	for (size_t i = 0; i < slab_words(slab->class); i++)
		if (~slab->taken[i])
			return (uint32_t)(i * 64) + (uint32_t)__builtin_ctzll(~slab->taken[i]);
	return UINT32_MAX;
}

/* Is the slot in held memory? */
static inline bool slab_holds(const struct slab *slab, uint32_t slot)
{
	return payload_offset(slab->class, slot + 1) <= slab->reserved;
}

/* How many slots lie in held memory. */
static inline uint32_t slab_held_slots(const struct slab *slab)
{
	uint32_t front = payload_offset(slab->class, 0), n = arena_classes()->slots[slab->class];
	uint32_t held = slab->reserved < front ? 0 :
			(slab->reserved - front) / arena_classes()->bytes[slab->class];

	return held < n ? held : n;
}

/* Is a free slot in held memory? */
static inline bool slab_has_held_room(const struct slab *slab)
{
	return slab_holds(slab, slab_lowest_free(slab));
}

static inline bool slab_is_full(const struct slab *slab)
{
	return slab->used == arena_classes()->slots[slab->class];
}

/* Memory up to `to` is held afterwards: 0, or why not. */
static inline int slabs_grow(struct slabs *s, uint32_t slab, uint32_t to, unsigned flags)
{
	return to <= s->slab[slab].reserved ? 0 : slabs_reserve(s, slab, to, flags);
}

#endif
