/* SPDX-License-Identifier: BSD-3-Clause */
/* What a host is made of, for the files that work on one: page.c and all above it. */
#ifndef PRESWAPD_PARTS_H
#define PRESWAPD_PARTS_H

#include "arena.h"
#include "headroom.h"
#include "index.h"
#include "queue.h"
#include "slabs.h"
#include "stores.h"

struct pool {
	bool live, frozen;             /* atomic */
	uint32_t flags;                /* atomic */
	uint32_t generation;           /* how many pools have had this number; atomic */
	uint32_t users;                /* how often a shared pool was joined */
	uint64_t pages, bytes, evicted;        /* atomic */
	uint64_t evicted_by_itself;    /* of those, because the pool was as large as it may be; atomic */
	uint64_t max_pages;            /* new pages beyond it are rejected; atomic */
	uint64_t max_bytes;            /* of an ephemeral pool: beyond it its own oldest go; atomic */
};

struct tmem_host {
	struct arena arena;
	struct headroom headroom;
	struct slabs slabs;
	struct index index;
	struct queue queue;
	pthread_mutex_t pools_mutex;   /* births and deaths of pools */
	struct pool pools[POOLS_MAX];
	uint64_t seq;                  /* the next one; atomic */
	uint64_t no_victims_at;        /* ns; when recompression last looked for some in vain; atomic */
	unsigned retry_ms;             /* of the thread that compresses what is staged; its own */
	struct tmem_stats count;       /* counters and page gauges; atomic */
};

static inline bool pool_is_ephemeral(const struct pool *p)
{
	return !(__atomic_load_n(&p->flags, __ATOMIC_RELAXED) & TMEM_PERSISTENT);
}

/* "A get to a private ephemeral pool is destructive", or to one that was made so. */
static inline bool pool_gets_remove(const struct pool *p)
{
	uint32_t flags = __atomic_load_n(&p->flags, __ATOMIC_RELAXED);

	return flags & TMEM_EXCLUSIVE_GETS || !(flags & (TMEM_PERSISTENT | TMEM_SHARED));
}

static inline uint32_t pool_generation(const struct pool *p)
{
	return __atomic_load_n(&p->generation, __ATOMIC_RELAXED);
}

/* No new page gets in: there are too many, the pool is frozen or a shrink is under way, or it is
 * being destroyed. */
static inline bool pool_is_full(const struct pool *p)
{
	return __atomic_load_n(&p->frozen, __ATOMIC_RELAXED) ||
	       !__atomic_load_n(&p->live, __ATOMIC_RELAXED) ||
	       count_of(&p->pages) >= count_of(&p->max_pages);
}

static inline struct tmem_handle handle_of(const struct slot *s)
{
	return (struct tmem_handle){
		.object = __atomic_load_n(&s->object, __ATOMIC_RELAXED),
		.index = __atomic_load_n(&s->index, __ATOMIC_RELAXED),
		.pool = __atomic_load_n(&s->pool, __ATOMIC_RELAXED)};
}

#endif
