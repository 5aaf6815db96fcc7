/* SPDX-License-Identifier: BSD-3-Clause */
/* A host from outside: its start and end, the table of the smaller steps, and the contract of
 * transcendent memory in single calls. */
#include "parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "eviction.h"
#include "mover.h"
#include "page.h"
#include "pools.h"
#include "room.h"
#include "staging.h"

/* --- The smaller steps ----------------------------------------------------------------------- */

static int host_reserve_index(struct tmem_host *h, const struct tmem_handle *handle, uint32_t last)
{
	page_lock(h, handle);
	int err = index_reserve(&h->index, handle, last);
	page_unlock(h, handle);
	return err;
}

static void host_forget_index(struct tmem_host *h, const struct tmem_handle *handle)
{
	page_lock(h, handle);
	index_forget(&h->index, handle);
	page_unlock(h, handle);
}

static int host_put(struct tmem_host *h, const struct tmem_handle *handle, const void *page,
		    enum tmem_compress compress)
{
	return tmem_put(h, handle, page, compress, false);
}

const struct tmem_ops tmem_ops = {
	.stage = room_stage,
	.build = room_build,
	.build_packed = room_build_packed,
	.abandon = page_abandon,
	.lock = page_lock,
	.trylock = page_trylock,
	.unlock = page_unlock,
	.find = page_find,
	.publish = page_publish,
	.drop = page_drop,
	.copy = page_copy,
	.slot_seq = page_slot_seq,
	.slot_bytes = page_slot_bytes,
	.release = page_release,
	.release_all = page_release_all,
	.open = page_open,
	.open_packed = page_open_packed,
	.pack = page_pack,
	.unpack = page_unpack,
	.count_get = page_count_get,
	.count_flush = page_count_flush,
	.reserve_index = host_reserve_index,
	.forget_index = host_forget_index,
	.next_seq = page_next_seq,
	.visit = page_visit,
	.settle = mover_settle_page,
	.recompress = mover_recompress,
	.put = host_put,
	.get = tmem_get,
	.flush = tmem_flush,
	.flush_object = tmem_flush_object,
};

/* --- The contract in single calls ---------------------------------------------------------- */

/* "A failed put over an existing page flushes the old one", unless the caller keeps it, or it is
 * a page of the next pool with this number. */
static int put_failed(struct tmem_host *h, const struct tmem_handle *handle, uint32_t generation,
		      bool keep_old)
{
	if (keep_old)
		return 0;
	page_lock(h, handle);
	bool same_pool = generation == pool_generation(&h->pools[handle->pool]);
	uint32_t old = same_pool ? page_drop(h, handle) : 0;
	page_unlock(h, handle);
	if (old)
		count_up(&h->count.dup_puts_flushed);
	page_release(h, old);
	return 0;
}

int tmem_put(struct tmem_host *h, const struct tmem_handle *handle, const void *page,
	     enum tmem_compress compress, bool keep_old)
{
	struct tmem_fresh fresh;
	uint32_t old;

	page_lock(h, handle);
	unsigned flags = index_get(&h->index, handle) ? TMEM_REPLACE : 0;
	page_unlock(h, handle);
	if (room_stage(h, handle, page, 1, compress, flags, &fresh) < 1 &&
	    room_build(h, handle, page, compress, flags, &fresh))
		return put_failed(h, handle, fresh.generation, keep_old);
	page_lock(h, handle);
	int err = page_publish(h, handle, &fresh, &old);
	uint64_t seq = err ? 0 : page_find(h, handle).seq;
	page_unlock(h, handle);
	if (err) {
		page_abandon(h, &fresh);
		return put_failed(h, handle, fresh.generation, keep_old);
	}
	page_release(h, old);
	if (pool_is_ephemeral(&h->pools[handle->pool])) {
		eviction_enqueue(h, handle, seq);
		eviction_fit_pool(h, &h->pools[handle->pool], 0);      /* others may have put meanwhile */
	}
	return 1;
}

static struct tmem_found copy_page(struct tmem_host *h, const struct tmem_handle *handle,
				   struct tmem_copy *copy)
{
	page_lock(h, handle);
	struct tmem_found found = page_find(h, handle);
	if (found.ref)
		page_copy(h, &found, copy);
	if (found.ref && pool_is_ephemeral(&h->pools[handle->pool]))
		index_note_get(&h->index, handle);
	page_unlock(h, handle);
	return found;
}

/* Drops the page if it is still the one that was read, in whatever slot. */
static bool remove_page(struct tmem_host *h, const struct tmem_handle *handle, uint64_t seq)
{
	page_lock(h, handle);
	struct tmem_found now = page_find(h, handle);
	uint32_t dead = now.ref && now.seq == seq ? page_drop(h, handle) : 0;
	page_unlock(h, handle);
	page_release(h, dead);
	return dead != 0;
}

/* Read first, then removed: a page that is damaged, or that cannot be unpacked for lack of memory,
 * stays.  If another get or put was faster, the next look is the answer. */
int tmem_get(struct tmem_host *h, const struct tmem_handle *handle, void *page)
{
	bool removes = pool_gets_remove(&h->pools[handle->pool]);
	struct tmem_found found;
	struct tmem_copy copy;
	int err = 0;

	do {
		found = copy_page(h, handle, &copy);
		if (found.ref)
			err = page_open(h, &copy, page);
	} while (removes && found.ref && !err && !remove_page(h, handle, found.seq));
	page_count_get(h, found.ref != 0);
	if (!found.ref)
		return 0;
	return err ? err : 1;
}

int tmem_flush(struct tmem_host *h, const struct tmem_handle *handle)
{
	page_lock(h, handle);
	uint32_t old = page_drop(h, handle);
	page_unlock(h, handle);
	page_count_flush(h, old != 0);
	page_release(h, old);
	return old != 0;
}

int64_t tmem_flush_object(struct tmem_host *h, uint32_t pool, uint64_t object)
{
	return page_flush_object(h, pool, object);
}

int tmem_recompress(struct tmem_host *h, const struct tmem_handle *handle,
		    enum tmem_compress compress)
{
	return mover_recompress(h, handle, compress);
}

/* --- A host ---------------------------------------------------------------------------------- */

static int host_make(struct arena *arena, struct tmem_host **host)
{
	struct tmem_host *h = calloc(1, sizeof *h);
	int err = h ? 0 : -ENOMEM;

	if (h) {
		h->arena = *arena;
		h->seq = 1;
		headroom_init(&h->headroom);
		err = slabs_init(&h->slabs, &h->arena, &h->headroom);
	}
	if (err) {
		free(h);
		arena_close(arena);
		return err;
	}
	index_init(&h->index, &h->headroom);
	queue_init(&h->queue, &h->headroom);
	pthread_mutex_init(&h->pools_mutex, NULL);
	*host = h;
	return 0;
}

int tmem_create(const char *path, const char *boot_id, struct tmem_host **host)
{
	struct arena arena;
	int err = arena_create(path, boot_id, &arena);

	return err ? err : host_make(&arena, host);
}

int tmem_open(const char *path, struct tmem_host **host, char *why, size_t why_size)
{
	struct arena arena;
	int err = arena_open(path, &arena, why, why_size);

	if (err)
		return err;
	if (!pools_fit(&arena)) {
		snprintf(why, why_size, "its pool table is damaged");
		arena_close(&arena);
		return -EINVAL;
	}
	snprintf(why, why_size, "not enough memory");
	err = host_make(&arena, host);
	if (!err)
		pools_load(*host);
	return err;
}

void tmem_close(struct tmem_host *h)
{
	pthread_mutex_destroy(&h->pools_mutex);
	queue_destroy(&h->queue);
	index_destroy(&h->index);
	slabs_destroy(&h->slabs);
	headroom_close(&h->headroom);
	arena_close(&h->arena);
	free(h);
}

const char *tmem_boot_id(const struct tmem_host *h)
{
	return arena_boot_id(&h->arena);
}

const uint8_t *tmem_uuid(const struct tmem_host *h)
{
	return arena_uuid(&h->arena);
}

uint8_t *tmem_table(struct tmem_host *h)
{
	return arena_user_table(&h->arena);
}

size_t tmem_table_reserved(const struct tmem_host *h)
{
	return h->arena.table_reserved;
}

int tmem_table_reserve(struct tmem_host *h, size_t bytes)
{
	return slabs_reserve_table(&h->slabs, bytes);
}

void tmem_set_limit(struct tmem_host *h, uint64_t bytes)
{
	slabs_set_limit(&h->slabs, bytes);
}

void tmem_set_cap(struct tmem_host *h, uint64_t bytes)
{
	slabs_set_cap(&h->slabs, bytes);
}

void tmem_set_spare(struct tmem_host *h, uint64_t bytes)
{
	slabs_set_spare(&h->slabs, bytes);
}

int64_t tmem_lacking(struct tmem_host *h)
{
	return slabs_lacking(&h->slabs);
}

int64_t tmem_wait_lacking(struct tmem_host *h, unsigned milliseconds)
{
	return slabs_wait_lacking(&h->slabs, milliseconds);
}

void tmem_wake(struct tmem_host *h)
{
	slabs_wake(&h->slabs);
}

uint64_t tmem_largest_limit(const struct tmem_host *h)
{
	return (uint64_t)h->arena.slabs * SLAB_BYTES;
}

void tmem_set_headroom(struct tmem_host *h, uint64_t host_reserve, uint64_t shm_reserve,
		       const int (*cgroups)[TMEM_CGROUP_FILES], size_t n)
{
	slabs_set_headroom(&h->slabs, host_reserve, shm_reserve, cgroups, n);
}

void tmem_set_aside(struct tmem_host *h, uint64_t bytes)
{
	slabs_set_aside(&h->slabs, bytes);
}

uint64_t tmem_room(struct tmem_host *h, int *limiter)
{
	return slabs_room(&h->slabs, limiter);
}

uint64_t tmem_owed(struct tmem_host *h)
{
	return slabs_owed(&h->slabs);
}

void tmem_set_staging(struct tmem_host *h, bool on)
{
	staging_set(&h->slabs, on);
}

/* The counters are read one by one, as an array: a test checks that all of them are 64 bits. */
_Static_assert(sizeof(struct tmem_stats) % sizeof(uint64_t) == 0, "an array of counters");

void tmem_get_stats(struct tmem_host *h, struct tmem_stats *to)
{
	const uint64_t *from = (const uint64_t *)&h->count;

	for (size_t i = 0; i < sizeof *to / sizeof *from; i++)
		((uint64_t *)to)[i] = count_of(&from[i]);
	to->puts = to->good_puts + to->no_mem_puts;
	slabs_get_stats(&h->slabs, to);
	to->metadata_size += count_of(&h->index.bytes) + count_of(&h->queue.bytes);
}
