/* What host.c, recover.c and mover.c share of a host.  Nobody else includes it. */
#ifndef PRESWAPD_HOST_H
#define PRESWAPD_HOST_H

#include "arena.h"
#include "codec.h"
#include "ephemeral.h"
#include "index.h"
#include "slots.h"
#include "stores.h"

struct pool {
	bool live, frozen;             /* atomic */
	uint32_t flags;                /* atomic */
	uint32_t births;               /* how many pools have had this number; atomic */
	uint32_t users;                /* how often a shared pool was joined */
	uint64_t pages;                /* atomic */
	uint64_t max_pages;            /* new pages beyond it are rejected; atomic */
};

struct tmem_host {
	struct arena arena;
	struct slots slots;
	struct index index;
	struct ephemeral ephemeral;
	pthread_mutex_t pools_mutex;   /* births and deaths of pools */
	struct pool pools[POOLS_MAX];
	uint64_t seq;                  /* the next one; atomic */
	struct tmem_stats count;       /* counters and page gauges; atomic */
};

/* Fills a taken slot whose state word is 0, all but what is known under the lock only. */
void host_fill(struct tmem_host *, uint32_t ref, const struct tmem_handle *, uint16_t what,
	       const void *bytes);
/* Births and deaths of pages in the gauges: +1 or -1.  The pool is the handle's: the one in a
 * slot may be damaged by now. */
void host_gauge(struct tmem_host *, uint32_t pool, const struct slot *, int change);
/* The same page in fewer bytes: what it was stored as before and is now. */
void host_regauge(struct tmem_host *, uint16_t before, uint16_t now);
/* A copy's checksum, its payload's digest given; and whether it is the one that it had. */
uint32_t host_sum(struct tmem_host *, const struct tmem_copy *, uint64_t digest);
bool host_is_intact(struct tmem_host *, const struct tmem_copy *);
/* Evicts the oldest ephemeral pages, `most` of them; how many there were. */
unsigned host_evict(struct tmem_host *, unsigned most);
/* An ephemeral page was put: it takes its place in the queue. */
void host_enqueue(struct tmem_host *, const struct tmem_handle *, uint64_t seq);

/* mover.c: compresses a slab of staged pages.  0 when there is none, 1 when it is staged no more,
 * -EAGAIN when something in it has to wait, -ENOSPC when there is no room for a copy. */
int host_unstage(struct tmem_host *, bool also_open);
void host_recompress(struct tmem_host *, const struct tmem_handle *, enum tmem_compress);

void host_sleep(unsigned milliseconds);

/* pools.c */
bool pools_fit(const struct arena *);
void pools_load(struct tmem_host *);
/* Recovery's end: pools whose pages do not outlive the process go too. */
void pools_drop_ephemeral(struct tmem_host *);
/* Sweeps stale entries out of the queue of ephemeral pages. */
void pools_tidy(struct tmem_host *);

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

static inline uint32_t pool_births(const struct pool *p)
{
	return __atomic_load_n(&p->births, __ATOMIC_RELAXED);
}

static inline struct tmem_handle handle_of(const struct slot *s)
{
	return (struct tmem_handle){
		.object = __atomic_load_n(&s->object, __ATOMIC_RELAXED),
		.index = __atomic_load_n(&s->index, __ATOMIC_RELAXED),
		.pool = __atomic_load_n(&s->pool, __ATOMIC_RELAXED)};
}

#endif
