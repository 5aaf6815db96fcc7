/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "consistent.h"

#include <string.h>
#include <sys/stat.h>

#include "codec.h"
#include "image.h"
#include "slots.h"

struct sums {
	uint64_t pages, ephemeral, same, huge, payload, slot_bytes, reserved, empty_bytes;
	uint64_t of_pool[POOLS_MAX], newest;
};

static void add_slot(struct tmem_host *h, const struct tmem_handle *handle, uint32_t ref,
		     bool intact, struct sums *sums)
{
	const struct slot *s = arena_slot(&h->arena, ref);

	if (!slots_taken(&h->slabs, ref))
		fail("a page in a slot that is free");
	sums->pages++;
	sums->of_pool[handle->pool]++;
	sums->ephemeral += pool_is_ephemeral(&h->pools[handle->pool]);
	if (!intact)
		return;
	struct tmem_handle in_slot = handle_of(s);
	if (!slot_header_fits(&h->arena, s) || in_slot.object != handle->object ||
	    in_slot.index != handle->index || in_slot.pool != handle->pool)
		fail("the index names the slot of another page");
	sums->same += codec_of(s->packing) == CODEC_SAME;
	sums->huge += codec_of(s->packing) == CODEC_RAW;
	sums->payload += length_of(s->packing);
	if (sums->newest < s->seq)
		sums->newest = s->seq;
}

static void add_object(struct tmem_host *h, const struct object *o, bool intact, struct sums *sums)
{
	struct tmem_handle at = {.object = o->id, .pool = o->pool};
	uint64_t before = sums->pages;
	uint32_t ref;

	while (index_next(&h->index, &at, &ref)) {
		add_slot(h, &at, ref, intact, sums);
		if (at.index++ == UINT32_MAX)
			break;
	}
	if (sums->pages - before != o->pages)
		fail("an object miscounts its pages");
}

static void add_slab(const struct slabs *s, uint32_t n, struct sums *sums, uint64_t *taken)
{
	const struct slab *slab = &s->slab[n];
	unsigned slots = slab->class ? arena_classes()->slots[slab->class] : 0;
	uint32_t used = 0;

	for (uint32_t i = 0; slab->taken && i < slots; i++)
		used += slab->taken[i / 64] >> i % 64 & 1;
	if (used != slab->used)
		fail("a slab miscounts its slots");
	*taken += used;
	sums->slot_bytes += (uint64_t)used * (HEADER_BYTES + arena_classes()->bytes[slab->class]);
	sums->reserved += slab->reserved;
	sums->empty_bytes += slab->class && !used ? slab->reserved : 0;
}

static void check_slots(const struct slabs *s, struct sums *sums)
{
	uint64_t taken = 0;
	struct stat st;

	for (uint32_t n = 1; n < s->high; n++)
		add_slab(s, n, sums, &taken);
	if (taken != sums->pages)
		fail("slots without pages");
	if (sums->slot_bytes != s->live_bytes || sums->empty_bytes != s->empty_bytes)
		fail("the allocator miscounts bytes");
	if (sums->reserved + s->arena->front_bytes != s->used_bytes || s->used_bytes > s->used_max)
		fail("the allocator miscounts memory");
	if (fstat(s->arena->fd, &st) || (uint64_t)st.st_blocks * 512 > s->used_bytes)
		fail("more memory is held than counted");
}

static void check_gauges(const struct tmem_host *h, const struct sums *sums, bool intact)
{
	const struct tmem_stats *c = &h->count;

	if (c->stored_pages != sums->pages || c->ephemeral_pages != sums->ephemeral)
		fail("a gauge of pages drifted");
	for (uint32_t pool = 0; pool < POOLS_MAX; pool++)
		if (h->pools[pool].pages != sums->of_pool[pool])
			fail("a pool miscounts its pages");
	if (intact && (c->same_filled_pages != sums->same || c->huge_pages != sums->huge))
		fail("a gauge of codecs drifted");
	if (intact && h->seq <= sums->newest && sums->newest < INT64_MAX)
		fail("the next page would be older than one that is stored");
	if (intact && c->compr_data_size != sums->payload)
		fail("the gauge of payloads drifted");
}

void check_host(struct tmem_host *h, bool intact)
{
	struct sums sums = {0};

	for (unsigned i = 0; i < STRIPES; i++)
		for (const struct object *o = h->index.stripes[i].objects; o; o = o->next)
			add_object(h, o, intact, &sums);
	check_slots(&h->slabs, &sums);
	check_gauges(h, &sums, intact);
}
