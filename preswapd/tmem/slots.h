/* The allocator of slots: which are taken, which slabs have room, how much memory is held.
 *
 * All of it is private memory, derived from the arena at start.  One mutex; it is never held
 * together with a page's lock (slots are released after the unlock), so that it may be held
 * across the 15 us of an fallocate.
 */
#ifndef PRESWAPD_SLOTS_H
#define PRESWAPD_SLOTS_H

#include <pthread.h>

#include "arena.h"
#include "headroom.h"

struct slab {
	uint32_t next, prev;           /* in its class's list, or among the empty ones; 0 ends */
	uint32_t reserved;             /* bytes, from the slab's beginning */
	uint32_t round;                /* the mover's last one that took it */
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
	uint64_t recut_at;             /* ns; when an empty slab was last cut anew with more memory than
					* it needed, 0 when none was since the last trim */
	struct list staging[TMEM_NONE];    /* for each codec: with a free slot ... */
	struct list staged;            /* ... and without, the oldest first */
	uint64_t staged_bytes, staged_pages;
	bool stages;                   /* atomic */
	pthread_cond_t staged_more;
	uint32_t rounds;
	uint32_t *free_numbers;        /* a stack of slabs without memory */
	uint32_t n_free, high;         /* high: no slab at or above it was ever used */
	uint64_t limit, used_bytes, used_max, live_bytes;
	struct headroom headroom;
};

enum slots_flags {
	SLOTS_REPLACE = TMEM_REPLACE,  /* may use the last 1 % of the limit */
	SLOTS_NOWAIT = TMEM_NOWAIT,    /* -EAGAIN rather than a system call */
	SLOTS_NOGROW = 4,              /* only where memory is already held (the mover) */
	SLOTS_UNSTAGE = 8,             /* may use what is set aside for staged pages */
};

/* The class of the slab that a slot is in. */
static inline unsigned slab_class(const struct slabs *s, uint32_t ref)
{
	return s->slab[slab_of(ref)].class;
}

int slabs_init(struct slabs *, struct arena *);
void slabs_destroy(struct slabs *);
/* A taken slot for a payload of `length` bytes, its state word 0; or -ENOSPC (the limit),
 * -ENOMEM (shared memory, or the host), -EAGAIN. */
int slots_alloc(struct slabs *, unsigned length, unsigned flags, uint32_t *ref);
/* Taken slots for whole pages that are to be compressed later, with that codec: how many of n, or
 * -EAGAIN.  None where they would take room that puts or the copies of staged pages need. */
int slots_alloc_staged(struct slabs *, enum tmem_compress, unsigned n, unsigned flags,
		       uint32_t *refs);
/* Taken slots for whole pages that stay as they are: how many of n, or -EAGAIN. */
int slots_alloc_raw(struct slabs *, unsigned n, unsigned flags, uint32_t *refs);
void slots_release(struct slabs *, uint32_t ref);
void slots_release_all(struct slabs *, const uint32_t *refs, unsigned n);
void slabs_give_back(struct slabs *, bool all);

/* Recovery, before anything runs: a slab with live slots is adopted, each slot marked. */
int slabs_adopt(struct slabs *, uint32_t slab, unsigned class);
void slabs_mark(struct slabs *, uint32_t ref, bool taken);
void slabs_adopt_done(struct slabs *);

/* The mover's side: sparse slabs to empty, out of reach of allocation until they are returned.
 * A slab is taken once in a round: one that cannot be emptied must not hold up the others. */
uint32_t victims_new_round(struct slabs *);
bool victims_wanted(struct slabs *);
uint32_t victims_take(struct slabs *, uint32_t round, uint32_t *slabs, uint32_t most);
void victims_return(struct slabs *, uint32_t slab);
bool slots_taken(struct slabs *, uint32_t ref);

/* The side of whoever compresses staged pages: the oldest slab of them without a free slot, or
 * `also_open` with some, out of reach of allocation until it is returned; 0 when there is none. */
uint32_t staging_take(struct slabs *, bool also_open);
/* As victims_return(); what is still in it has been `tried` and stays as it is. */
void staging_return(struct slabs *, uint32_t slab, bool tried);
/* Waits so long for staged pages, then for a slab of them to be without a free slot: whether one
 * is. */
bool staging_wait(struct slabs *, unsigned milliseconds, unsigned for_more);
bool staging_is_on(const struct slabs *);
/* Slabs of staged pages. */
uint32_t staging_slabs(struct slabs *);
/* Is so much staged that it will soon have to stop? */
bool staging_presses(struct slabs *);
void staging_set(struct slabs *, bool on);

/* Bytes that are held beyond the limit: it was lowered. */
uint64_t slabs_over_limit(struct slabs *);

#endif
