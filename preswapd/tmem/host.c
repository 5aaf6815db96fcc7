#include "codec.h"
#include "eviction.h"
#include "mover.h"
#include "page.h"
#include "pools.h"
#include "room.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* Evicting a few pages at a time: enough to empty a slab of most classes in the end. */
#define EVICT_AT_ONCE 16u
#define EVICT_ROUNDS 256u
/* A put without room waits so long for staged pages that others are at work on: putting them, which
 * takes microseconds, or compressing them, 0.1 ms a slab; either may have lost its processor. */
#define UNSTAGE_WAITS 50u
#define UNSTAGE_WAIT_MS 1u

/* --- Building, publishing, dropping ------------------------------------------------------- */

void page_fill(struct tmem_host *h, uint32_t ref, const struct tmem_handle *handle, uint16_t what,
	       const void *bytes)
{
	struct slot *s = arena_slot(&h->arena, ref);

	__atomic_store_n(&s->object, handle->object, __ATOMIC_RELAXED);
	__atomic_store_n(&s->index, handle->index, __ATOMIC_RELAXED);
	__atomic_store_n(&s->pool, (uint16_t)handle->pool, __ATOMIC_RELAXED);
	s->what = what;
	memcpy(arena_payload(&h->arena, ref, h->slots.slabs[slab_of(ref)].class), bytes,
	       length_of(what));
}

/* Gives a filled slot its seq and its birth. */
static void make_live(struct tmem_host *h, const struct tmem_fresh *fresh)
{
	struct slot *s = arena_slot(&h->arena, fresh->ref);

	__atomic_store_n(&s->seq, __atomic_fetch_add(&h->seq, 1, __ATOMIC_RELAXED),
			 __ATOMIC_RELAXED);
	store_release(&s->state, slot_live_word(&h->arena, s, slot_sum(&h->arena, s, fresh->digest)));
}

static void make_dead(struct tmem_host *h, uint32_t ref)
{
	store_release(&arena_slot(&h->arena, ref)->state, 0);
}

static void gauge_bytes(struct tmem_host *h, uint16_t what, uint64_t add)
{
	__atomic_fetch_add(&h->count.compr_data_size, add * length_of(what), __ATOMIC_RELAXED);
	if (codec_of(what) == CODEC_SAME)
		__atomic_fetch_add(&h->count.same_filled_pages, add, __ATOMIC_RELAXED);
	else if (codec_of(what) == CODEC_RAW)
		__atomic_fetch_add(&h->count.huge_pages, add, __ATOMIC_RELAXED);
}

void page_gauge(struct tmem_host *h, uint32_t pool, const struct slot *s, int change)
{
	uint64_t add = (uint64_t)(int64_t)change;

	__atomic_fetch_add(&h->count.stored_pages, add, __ATOMIC_RELAXED);
	gauge_bytes(h, s->what, add);
	__atomic_fetch_add(&h->pools[pool].pages, add, __ATOMIC_RELAXED);
	if (pool_is_ephemeral(&h->pools[pool]))
		__atomic_fetch_add(&h->count.ephemeral_pages, add, __ATOMIC_RELAXED);
}

void page_regauge(struct tmem_host *h, uint16_t before, uint16_t now)
{
	if (before == now)
		return;
	gauge_bytes(h, before, (uint64_t)-1);
	gauge_bytes(h, now, 1);
}

int page_reject(struct tmem_host *h, uint64_t *why)
{
	count_up(&h->count.no_mem_puts);
	count_up(why);
	return -ENOSPC;
}

/* A put needs room: staged pages are compressed first, all of them if need be.  Above a lowered
 * limit that would be in vain, as nothing gets in before maintain() has given memory back. */
static int alloc_unstaging(struct tmem_host *h, unsigned length, unsigned flags, uint32_t *ref)
{
	int err = slots_alloc(&h->slots, length, flags, ref);
	unsigned waits = 0;

	while ((err == -ENOSPC || err == -ENOMEM) && waits < UNSTAGE_WAITS) {
		if (!slots_staged(&h->slots) || slots_over_limit(&h->slots))
			break;
		if (flags & TMEM_NOWAIT)
			return -EAGAIN;
		int unstaged = mover_unstage(h, true);
		if (unstaged == -ENOSPC)
			break;
		if (unstaged != 1) {
			sleep_ms(UNSTAGE_WAIT_MS);
			waits++;
		}
		err = slots_alloc(&h->slots, length, flags, ref);
	}
	return err;
}

/* Then the oldest ephemeral pages go, until there is a slot. */
static int alloc_evicting(struct tmem_host *h, unsigned length, unsigned flags, uint32_t *ref)
{
	int err = alloc_unstaging(h, length, flags, ref);

	for (unsigned i = 0; (err == -ENOSPC || err == -ENOMEM) && i < EVICT_ROUNDS; i++) {
		if (!count_of(&h->count.ephemeral_pages))
			break;
		if (flags & TMEM_NOWAIT)
			return -EAGAIN;
		if (slots_over_limit(&h->slots) || !eviction_evict(h, EVICT_AT_ONCE))
			break;
		err = alloc_unstaging(h, length, flags, ref);
	}
	return err;
}

/* The digest is of what now stands there, which the copy has just brought near: of the source it
 * costs a fourth more (25 instead of 20 us for 32 raw pages, all told). */
static void fill_fresh(struct tmem_host *h, const struct tmem_handle *handle,
		       const struct packed *p, struct tmem_fresh *fresh)
{
	unsigned class = h->slots.slabs[slab_of(fresh->ref)].class;

	fresh->what = what_of(p->length, p->codec);
	page_fill(h, fresh->ref, handle, fresh->what, p->bytes);
	fresh->digest = payload_digest(arena_payload(&h->arena, fresh->ref, class), p->length);
}

int room_build(struct tmem_host *h, const struct tmem_handle *handle, const void *page,
		      enum tmem_compress how, unsigned flags, struct tmem_fresh *fresh)
{
	struct scratch *scratch = scratch_of_thread();
	uint8_t out[TMEM_PAGE];
	struct packed p;

	fresh->births = pool_births(&h->pools[handle->pool]);
	/* Early and cheap: a rejected put of a full pool should cost next to nothing. */
	if (!(flags & TMEM_REPLACE) && pool_is_full(&h->pools[handle->pool]))
		return page_reject(h, &h->count.pool_limit_hit);
	if (!scratch)
		return page_reject(h, &h->count.reject_alloc_fail);
	codec_pack(scratch, how, page, arena_classes()->bytes[CLASS_RAW + 1], out, &p);
	int err = alloc_evicting(h, p.length, flags, &fresh->ref);
	if (err == -EAGAIN)
		return err;
	if (err)
		return page_reject(h, err == -ENOSPC ? &h->count.pool_limit_hit :
						    &h->count.reject_alloc_fail);
	fill_fresh(h, handle, &p, fresh);
	return 0;
}

/* More would only be rejected when they are published, and counted twice. */
static uint64_t pages_that_fit(const struct pool *p, uint64_t n)
{
	if (pool_is_full(p))
		return 0;
	uint64_t room = count_of(&p->max_pages) - count_of(&p->pages);
	return n < room ? n : room;
}

int room_stage(struct tmem_host *h, const struct tmem_handle *handles, const void *pages,
		      unsigned n, enum tmem_compress how, unsigned flags, struct tmem_fresh *fresh)
{
	uint32_t births = pool_births(&h->pools[handles->pool]);
	const uint8_t *page = pages;
	uint32_t refs[TMEM_STAGE_MOST];
	unsigned wanted = 0;

	if (how != TMEM_NONE && !slots_stages(&h->slots))
		return 0;
	n = (unsigned)pages_that_fit(&h->pools[handles->pool], n);
	while (wanted < n && !codec_same_filled(page + wanted * TMEM_PAGE))
		wanted++;
	int got = !wanted ? 0 :
		  how == TMEM_NONE ? slots_alloc_raw(&h->slots, wanted, flags, refs) :
				     slots_alloc_staged(&h->slots, how, wanted, flags, refs);
	for (int i = 0; i < got; i++) {
		struct packed raw = {page + i * TMEM_PAGE, TMEM_PAGE, CODEC_RAW};
		fresh[i].births = births;
		fresh[i].ref = refs[i];
		fill_fresh(h, &handles[i], &raw, &fresh[i]);
	}
	return got;
}

void page_release(struct tmem_host *h, uint32_t ref)
{
	if (ref)
		slots_release(&h->slots, ref);
}

void page_release_all(struct tmem_host *h, const uint32_t *refs, unsigned n)
{
	slots_release_all(&h->slots, refs, n);
}

void page_discard(struct tmem_host *h, const struct tmem_fresh *fresh)
{
	slots_release(&h->slots, fresh->ref);
}

void page_lock(struct tmem_host *h, const struct tmem_handle *handle)
{
	pthread_mutex_lock(&stripe_of(&h->index, handle)->mutex);
}

bool page_trylock(struct tmem_host *h, const struct tmem_handle *handle)
{
	return pthread_mutex_trylock(&stripe_of(&h->index, handle)->mutex) == 0;
}

void page_unlock(struct tmem_host *h, const struct tmem_handle *handle)
{
	pthread_mutex_unlock(&stripe_of(&h->index, handle)->mutex);
}

/* Header and payload lie far apart, and what is found is mostly copied next: the payload is on its
 * way while the header is waited for (a page read 1.3 instead of 1.8 us). */
struct tmem_found page_find(struct tmem_host *h, const struct tmem_handle *handle)
{
	uint32_t ref = index_get(&h->index, handle);

	if (!ref)
		return (struct tmem_found){0, 0};
	unsigned class = h->slots.slabs[slab_of(ref)].class;
	const uint8_t *payload = arena_payload(&h->arena, ref, class);
	for (unsigned at = 0; at < arena_classes()->bytes[class]; at += 64)
		__builtin_prefetch(payload + at);
	return (struct tmem_found){arena_slot(&h->arena, ref)->seq, ref};
}

/* New slot LIVE, index, old slot 0: in that order (rules R1 to R3). */
int page_publish(struct tmem_host *h, const struct tmem_handle *handle,
			const struct tmem_fresh *fresh, uint32_t *old)
{
	struct pool *pool = &h->pools[handle->pool];
	uint32_t before = index_get(&h->index, handle);

	*old = 0;
	if (fresh->births != pool_births(pool))
		return page_reject(h, &h->count.pool_limit_hit);
	if (!before) {
		if (pool_is_full(pool))
			return page_reject(h, &h->count.pool_limit_hit);
		if (index_prepare(&h->index, handle))
			return page_reject(h, &h->count.reject_alloc_fail);
	}
	make_live(h, fresh);
	index_set(&h->index, handle, fresh->ref);
	*old = before;
	if (before) {
		page_regauge(h, arena_slot(&h->arena, before)->what, fresh->what);
		make_dead(h, before);
		count_up(&h->count.dup_puts_replaced);
	} else {
		page_gauge(h, handle->pool, arena_slot(&h->arena, fresh->ref), 1);
	}
	count_up(&h->count.good_puts);
	return 0;
}

uint32_t page_drop(struct tmem_host *h, const struct tmem_handle *handle)
{
	uint32_t ref = index_clear(&h->index, handle);

	if (ref) {
		page_gauge(h, handle->pool, arena_slot(&h->arena, ref), -1);
		make_dead(h, ref);
	}
	return ref;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* Under the lock no longer than a memcpy; decompression works on the copy.  A length that does
 * not fit its class is damage, for open() to find. */
void page_copy(struct tmem_host *h, const struct tmem_found *found, struct tmem_copy *c)
{
	const struct slot *s = arena_slot(&h->arena, found->ref);
	unsigned class = h->slots.slabs[slab_of(found->ref)].class;
	uint64_t state = load_acquire(&s->state);

	c->handle = handle_of(s);
	c->seq = s->seq;
	c->what = s->what;
	c->sum = (uint32_t)state;
	if (length_of(c->what) > arena_classes()->bytes[class] || length_of(c->what) > TMEM_PAGE)
		c->what = 0;
	memcpy(c->bytes, arena_payload(&h->arena, found->ref, class), length_of(c->what));
}

uint32_t page_sum(struct tmem_host *h, const struct tmem_copy *c, uint64_t digest)
{
	struct slot s = {.object = c->handle.object, .seq = c->seq, .index = c->handle.index,
			 .pool = (uint16_t)c->handle.pool, .what = c->what};

	return slot_sum(&h->arena, &s, digest);
}

bool page_is_intact(struct tmem_host *h, const struct tmem_copy *c)
{
	return page_sum(h, c, payload_digest(c->bytes, length_of(c->what))) == c->sum;
}

int page_open(struct tmem_host *h, const struct tmem_copy *c, void *page)
{
	struct scratch *scratch = scratch_of_thread();

	if (!scratch)
		return -ENOMEM;
	int err = !page_is_intact(h, c) ? -EIO :
		  codec_unpack(scratch, codec_of(c->what), c->bytes, length_of(c->what), page);
	if (err == -EIO)
		count_up(&h->count.checksum_errors);
	return err;
}

void page_count_get(struct tmem_host *h, bool found)
{
	count_up(&h->count.gets);
	if (found)
		count_up(&h->count.found_gets);
}

void page_count_flush(struct tmem_host *h, bool found)
{
	count_up(&h->count.flushes);
	if (found)
		count_up(&h->count.flushes_found);
}

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

/* Some pages under each hold of the lock: a big object has a million. */
#define VISIT_AT_ONCE 256u

void page_visit(struct tmem_host *h, const struct tmem_handle *handle, tmem_visit visit,
		       void *ctx)
{
	struct tmem_handle at = {.object = handle->object, .pool = handle->pool};
	bool more = true;
	uint32_t ref;

	while (more) {
		page_lock(h, &at);
		for (unsigned i = 0; more && i < VISIT_AT_ONCE; i++) {
			more = index_next(&h->index, &at, &ref);
			if (more)
				visit(ctx, at.index, arena_slot(&h->arena, ref)->seq);
			more = more && at.index++ != UINT32_MAX;
		}
		page_unlock(h, &at);
	}
}

static void host_give_back(struct tmem_host *h, bool all)
{
	slots_give_back(&h->slots, all);
}

const struct tmem_ops tmem_ops = {
	.stage = room_stage,
	.build = room_build,
	.discard = page_discard,
	.lock = page_lock,
	.trylock = page_trylock,
	.unlock = page_unlock,
	.find = page_find,
	.publish = page_publish,
	.drop = page_drop,
	.copy = page_copy,
	.release = page_release,
	.release_all = page_release_all,
	.open = page_open,
	.count_get = page_count_get,
	.count_flush = page_count_flush,
	.reserve_index = host_reserve_index,
	.forget_index = host_forget_index,
	.visit = page_visit,
	.recompress = mover_recompress,
	.give_back = host_give_back,
};

/* --- The contract in single calls ---------------------------------------------------------- */

/* "A failed put over an existing page flushes the old one", unless the caller keeps it, or it is
 * a page of the next pool with this number. */
static int put_failed(struct tmem_host *h, const struct tmem_handle *handle, uint32_t births,
		      bool keep_old)
{
	if (keep_old)
		return 0;
	page_lock(h, handle);
	uint32_t old = births == pool_births(&h->pools[handle->pool]) ? page_drop(h, handle) : 0;
	page_unlock(h, handle);
	if (old)
		count_up(&h->count.dup_puts_flushed);
	page_release(h, old);
	return 0;
}

int tmem_put(struct tmem_host *h, const struct tmem_handle *handle, const void *page,
	     enum tmem_compress how, bool keep_old)
{
	struct tmem_fresh fresh;
	uint32_t old;

	page_lock(h, handle);
	unsigned flags = index_get(&h->index, handle) ? TMEM_REPLACE : 0;
	page_unlock(h, handle);
	if (room_stage(h, handle, page, 1, how, flags, &fresh) < 1 &&
	    room_build(h, handle, page, how, flags, &fresh))
		return put_failed(h, handle, fresh.births, keep_old);
	page_lock(h, handle);
	int err = page_publish(h, handle, &fresh, &old);
	uint64_t seq = err ? 0 : page_find(h, handle).seq;
	page_unlock(h, handle);
	if (err) {
		page_discard(h, &fresh);
		return put_failed(h, handle, fresh.births, keep_old);
	}
	page_release(h, old);
	if (pool_is_ephemeral(&h->pools[handle->pool]))
		eviction_enqueue(h, handle, seq);
	return 1;
}

static struct tmem_found copy_page(struct tmem_host *h, const struct tmem_handle *handle,
				   struct tmem_copy *copy)
{
	page_lock(h, handle);
	struct tmem_found found = page_find(h, handle);
	if (found.ref)
		page_copy(h, &found, copy);
	page_unlock(h, handle);
	return found;
}

/* Is it still the page that was read, in whatever slot?  Then it goes. */
static bool remove_page(struct tmem_host *h, const struct tmem_handle *handle, uint64_t seq)
{
	page_lock(h, handle);
	struct tmem_found now = page_find(h, handle);
	uint32_t dead = now.ref && now.seq == seq ? page_drop(h, handle) : 0;
	page_unlock(h, handle);
	page_release(h, dead);
	return dead != 0;
}

/* Read first, then removed: a page that is damaged, or that there is no memory to unpack, stays.
 * If another get or put was faster, the next look is the answer. */
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

/* A few pages under each hold of the lock: others wait no longer than for a put. */
int64_t page_flush_object(struct tmem_host *h, uint32_t pool, uint64_t object)
{
	struct tmem_handle at = {.object = object, .pool = pool};
	uint32_t dead[16], n;
	int64_t dropped = 0;

	do {
		n = 0;
		page_lock(h, &at);
		while (n < 16 && index_next(&h->index, &at, &dead[n])) {
			page_drop(h, &at);
			n++;
		}
		page_unlock(h, &at);
		for (uint32_t i = 0; i < n; i++) {
			page_count_flush(h, true);
			page_release(h, dead[i]);
		}
		dropped += n;
	} while (n == 16);
	return dropped;
}

int64_t tmem_flush_object(struct tmem_host *h, uint32_t pool, uint64_t object)
{
	return page_flush_object(h, pool, object);
}

/* --- A host ---------------------------------------------------------------------------------- */

static int host_make(struct arena *arena, struct tmem_host **host)
{
	struct tmem_host *h = calloc(1, sizeof *h);
	int err = h ? 0 : -ENOMEM;

	if (h) {
		h->arena = *arena;
		h->seq = 1;
		err = slots_init(&h->slots, &h->arena);
	}
	if (err) {
		free(h);
		arena_close(arena);
		return err;
	}
	index_init(&h->index);
	queue_init(&h->queue);
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
	slots_destroy(&h->slots);
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
	pthread_mutex_lock(&h->slots.mutex);
	uint64_t before = h->arena.front_bytes;
	int err = arena_reserve_user_table(&h->arena, bytes);
	h->slots.used_bytes += h->arena.front_bytes - before;
	if (h->slots.used_bytes > h->slots.used_max)
		h->slots.used_max = h->slots.used_bytes;
	pthread_mutex_unlock(&h->slots.mutex);
	return err;
}

void tmem_set_limit(struct tmem_host *h, uint64_t bytes)
{
	pthread_mutex_lock(&h->slots.mutex);
	h->slots.limit = bytes;
	pthread_mutex_unlock(&h->slots.mutex);
}

void tmem_set_staging(struct tmem_host *h, bool on)
{
	slots_set_staging(&h->slots, on);
}

void tmem_set_headroom(struct tmem_host *h, uint64_t host_reserve, const int (*cgroups)[3],
		       size_t n)
{
	pthread_mutex_lock(&h->slots.mutex);
	headroom_set(&h->slots.headroom, host_reserve, cgroups, n);
	pthread_mutex_unlock(&h->slots.mutex);
}

void tmem_get_stats(struct tmem_host *h, struct tmem_stats *to)
{
	const uint64_t *from = (const uint64_t *)&h->count;

	for (size_t i = 0; i < sizeof *to / sizeof *from; i++)
		((uint64_t *)to)[i] = count_of(&from[i]);
	to->puts = to->good_puts + to->no_mem_puts;
	pthread_mutex_lock(&h->slots.mutex);
	to->mem_limit = h->slots.limit;
	to->mem_used_total = h->slots.used_bytes;
	to->mem_used_max = h->slots.used_max;
	to->live_slot_bytes = h->slots.live_bytes;
	to->staged_pages = h->slots.staged_pages;
	to->metadata_size = (uint64_t)h->slots.high * sizeof(struct slab);
	pthread_mutex_unlock(&h->slots.mutex);
	to->metadata_size += count_of(&h->index.bytes) + count_of(&h->queue.bytes);
}
