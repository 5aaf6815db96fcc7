/* SPDX-License-Identifier: BSD-3-Clause */
/* Pools: private and shared, persistent and ephemeral, in the arena's table. */
#include "pools.h"

#include <errno.h>
#include <string.h>

#include "eviction.h"
#include "page.h"

#define POOL_TAG 0x706f6f6cull                 /* "pool" */
#define KNOWN_FLAGS (TMEM_PERSISTENT | TMEM_SHARED | TMEM_EXCLUSIVE_GETS)

bool pools_fit(const struct arena *a)
{
	for (uint32_t id = 0; id < POOLS_MAX; id++) {
		const struct pool_entry *e = &arena_pools(a)[id];
		if (e->state && (e->state >> 32 != POOL_TAG ||
				 e->check != arena_pool_check(a, e, (uint32_t)e->state)))
			return false;
	}
	return true;
}

static void load(struct tmem_host *h, uint32_t id)
{
	const struct pool_entry *e = &arena_pools(&h->arena)[id];
	struct pool *p = &h->pools[id];

	/* A call for the pool that had this number before may still be reading. */
	__atomic_fetch_add(&p->generation, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&p->flags, (uint32_t)e->state, __ATOMIC_RELAXED);
	__atomic_store_n(&p->frozen, false, __ATOMIC_RELAXED);
	__atomic_store_n(&p->max_pages, UINT64_MAX, __ATOMIC_RELAXED);
	__atomic_store_n(&p->max_bytes, UINT64_MAX, __ATOMIC_RELAXED);
	p->users = 0;
	__atomic_store_n(&p->evicted, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&p->evicted_by_itself, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&p->live, e->state != 0, __ATOMIC_RELEASE);
}

void pools_load(struct tmem_host *h)
{
	for (uint32_t id = 0; id < POOLS_MAX; id++)
		load(h, id);
}

static void forget(struct tmem_host *h, uint32_t id)
{
	store_release(&arena_pools(&h->arena)[id].state, 0);
	__atomic_store_n(&h->pools[id].live, false, __ATOMIC_RELAXED);
}

void pools_drop_ephemeral(struct tmem_host *h)
{
	for (uint32_t id = 0; id < POOLS_MAX; id++)
		if (h->pools[id].live && pool_is_ephemeral(&h->pools[id]))
			forget(h, id);
}

bool tmem_pool_exists(const struct tmem_host *h, uint32_t id)
{
	return id < POOLS_MAX && __atomic_load_n(&h->pools[id].live, __ATOMIC_ACQUIRE);
}

/* The 128-bit uuid is the secret of those who share the pool: another one finds nothing. */
static int find_shared(const struct tmem_host *h, const uint8_t uuid[16])
{
	for (uint32_t id = 0; id < POOLS_MAX; id++)
		if (tmem_pool_exists(h, id) && h->pools[id].flags & TMEM_SHARED &&
		    memcmp(arena_pools(&h->arena)[id].uuid, uuid, 16) == 0)
			return (int)id;
	return -ENOENT;
}

static int make(struct tmem_host *h, const uint8_t uuid[16], uint32_t flags)
{
	for (uint32_t id = 0; id < POOLS_MAX; id++) {
		struct pool_entry *e = &arena_pools(&h->arena)[id];
		if (e->state)
			continue;
		memcpy(e->uuid, uuid, sizeof e->uuid);
		e->check = arena_pool_check(&h->arena, e, flags);
		store_release(&e->state, POOL_TAG << 32 | flags);
		load(h, id);
		return (int)id;
	}
	return -ENOSPC;
}

static int join_or_make(struct tmem_host *h, const uint8_t uuid[16], uint32_t flags)
{
	int id = flags & TMEM_SHARED ? find_shared(h, uuid) : -ENOENT;

	if (id >= 0 && h->pools[id].flags != flags)
		return -EEXIST;
	if (id < 0)
		id = make(h, uuid, flags);
	if (id >= 0)
		h->pools[id].users++;
	return id;
}

int tmem_new_pool(struct tmem_host *h, const uint8_t uuid[16], uint32_t flags)
{
	static const uint8_t none[16];

	if (flags & ~(uint32_t)KNOWN_FLAGS ||
	    (flags & TMEM_SHARED && memcmp(uuid, none, sizeof none) == 0))
		return -EINVAL;
	pthread_mutex_lock(&h->pools_mutex);
	int id = join_or_make(h, uuid, flags);
	pthread_mutex_unlock(&h->pools_mutex);
	return id;
}

/* The first object of the pool with pages in this stripe; false when there is none. */
static bool find_object(struct stripe *stripe, uint32_t pool, uint64_t *object)
{
	pthread_mutex_lock(&stripe->mutex);
	struct object *o = stripe->objects;
	while (o && (o->pool != pool || !o->pages))
		o = o->next;
	if (o)
		*object = o->id;
	pthread_mutex_unlock(&stripe->mutex);
	return o != NULL;
}

/* No put is taken any more, see page_publish(); then the pages go, then the entry.  What a kill
 * leaves is a pool with fewer pages. */
static int64_t drop_pages(struct tmem_host *h, uint32_t id)
{
	int64_t dropped = 0;
	uint64_t object;

	for (unsigned i = 0; i < STRIPES; i++)
		while (find_object(&h->index.stripes[i], id, &object))
			dropped += page_flush_object(h, id, object);
	return dropped;
}

int64_t tmem_destroy_pool(struct tmem_host *h, uint32_t id)
{
	int64_t dropped = 0;

	pthread_mutex_lock(&h->pools_mutex);
	if (!tmem_pool_exists(h, id)) {
		dropped = -ENOENT;
	} else if (h->pools[id].users > 1) {
		h->pools[id].users--;
	} else {
		__atomic_store_n(&h->pools[id].live, false, __ATOMIC_RELAXED);
		dropped = drop_pages(h, id);
		forget(h, id);
	}
	pthread_mutex_unlock(&h->pools_mutex);
	return dropped;
}

int tmem_freeze(struct tmem_host *h, uint32_t id, bool frozen)
{
	if (!tmem_pool_exists(h, id))
		return -ENOENT;
	__atomic_store_n(&h->pools[id].frozen, frozen, __ATOMIC_RELAXED);
	return 0;
}

int tmem_set_max_pages(struct tmem_host *h, uint32_t id, uint64_t pages)
{
	if (!tmem_pool_exists(h, id))
		return -ENOENT;
	__atomic_store_n(&h->pools[id].max_pages, pages, __ATOMIC_RELAXED);
	return 0;
}

int tmem_set_max_bytes(struct tmem_host *h, uint32_t id, uint64_t bytes)
{
	if (!tmem_pool_exists(h, id))
		return -ENOENT;
	if (!pool_is_ephemeral(&h->pools[id]))
		return -EINVAL;
	__atomic_store_n(&h->pools[id].max_bytes, bytes, __ATOMIC_RELAXED);
	eviction_fit_pool(h, &h->pools[id], 0);
	return 0;
}

int tmem_get_pool_stats(const struct tmem_host *h, uint32_t id, struct tmem_pool_stats *to)
{
	if (!tmem_pool_exists(h, id))
		return -ENOENT;
	*to = (struct tmem_pool_stats){.pages = count_of(&h->pools[id].pages),
				       .bytes = count_of(&h->pools[id].bytes),
				       .evicted = count_of(&h->pools[id].evicted),
				       .evicted_by_itself =
					       count_of(&h->pools[id].evicted_by_itself)};
	return 0;
}
