/* SPDX-License-Identifier: BSD-3-Clause */
#include "expected.h"

#include <string.h>

#include "codec.h"
#include "parts.h"
#include "image.h"

#define ROOM 65536u                    /* more than handles that an image and an input can name */

static struct expected table[ROOM];
static uint32_t order[ROOM], known;
static unsigned round_now;

static bool same(const struct tmem_handle *a, const struct tmem_handle *b)
{
	return a->object == b->object && a->index == b->index && a->pool == b->pool;
}

struct expected *expected_of(const struct tmem_handle *handle)
{
	uint64_t at = (handle->object * 31 + handle->index) * 0x9e3779b97f4a7c15ull + handle->pool;

	at >>= 32;
	while (table[at % ROOM].round == round_now && !same(&table[at % ROOM].handle, handle))
		at++;
	struct expected *e = &table[at % ROOM];
	if (e->round != round_now) {
		if (known == ROOM / 2)
			fail("the fuzzer knows too many handles");
		*e = (struct expected){.handle = *handle, .round = round_now};
		order[known++] = (uint32_t)(at % ROOM);
	}
	return e;
}

struct expected *expected_at(uint32_t n)
{
	return n < known ? &table[order[n]] : NULL;
}

uint32_t expected_count(void)
{
	return known;
}

/* The page in a slot, or damage. */
static enum fate read_slot(uint32_t ref, unsigned class, uint64_t *digest)
{
	const struct slot *s = arena_slot(image(), ref);
	const uint8_t *payload = arena_payload(image(), ref, class);
	struct tmem_handle handle = handle_of(s);
	unsigned length = length_of(s->packing);
	uint8_t page[TMEM_PAGE];

	if (length > TMEM_PAGE ||
	    slot_sum(image(), s, payload_digest(payload, length)) != (uint32_t)s->state ||
	    codec_unpack(scratch_of_thread(), codec_of(s->packing), payload, length, page))
		return DAMAGED;
	if (image_made(ref) && !names_itself(page, &handle))
		fail("a payload that was changed fits its checksum");
	*digest = payload_digest(page, TMEM_PAGE);
	return STORED;
}

static bool is_kept(const struct tmem_handle *handle, tmem_keep keep)
{
	if (handle->pool >= POOLS_MAX)
		return false;
	uint64_t state = arena_pools(image())[handle->pool].state;
	return state && state & TMEM_PERSISTENT && (!keep || keep(NULL, handle));
}

static void expect_slot(uint32_t ref, unsigned class, tmem_keep keep, struct tmem_recovery *found)
{
	const struct slot *s = arena_slot(image(), ref);
	struct tmem_handle handle = handle_of(s);

	if (s->state == 0)
		return;
	if (!slot_header_fits(image(), s) || length_of(s->packing) > arena_classes()->bytes[class]) {
		found->damaged_slots++;
	} else if (!is_kept(&handle, keep)) {
		found->dropped_pages++;
	} else {
		struct expected *e = expected_of(&handle);
		bool first = e->ref == 0;
		found->losers += !first;
		found->stored_pages += first;
		if (first || e->seq < s->seq) {
			e->ref = ref;
			e->seq = s->seq;
			e->fate = read_slot(ref, class, &e->digest);
		}
	}
}

void expect_recovery(tmem_keep keep, struct tmem_recovery *found)
{
	known = 0;
	round_now++;
	*found = (struct tmem_recovery){0};
	for (uint32_t slab = 1; slab < IMAGE_SLABS; slab++) {
		int class = arena_class(image(), slab);
		found->damaged_slabs += class < 0;
		for (uint32_t i = 0; class > 0 && i < arena_classes()->slots[class]; i++)
			expect_slot(ref_of(slab, i), (unsigned)class, keep, found);
	}
}

uint64_t expected_slot_bytes(void)
{
	uint64_t bytes = 0;

	for (uint32_t n = 0; n < known; n++) {
		int class = arena_class(image(), slab_of(expected_at(n)->ref));
		bytes += HEADER_BYTES + arena_classes()->bytes[class];
	}
	return bytes;
}
