/* SPDX-License-Identifier: BSD-3-Clause */
/* Races of two threads, played out step by step by one; a program for tests, a case a run.
 *
 * The mover is included and not linked: its steps are its own.  A get is stopped where it unpacks,
 * a put where it packs, which the linker makes calls of __wrap_codec_unpack() and
 * __wrap_codec_pack().  Ends with 0 when all was right.
 */
#include "codec.h"
#include "mover.c"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

#define CHECK(what) check((what), #what)

static struct tmem_host *host;
static const uint8_t uuid[16];
static uint64_t page[TMEM_PAGE / 8];

static void check(bool right, const char *what)
{
	if (!right)
		fprintf(stderr, "not so: %s\n", what);
	if (!right)
		_Exit(1);
}

static struct tmem_handle handle_in_pool(int pool)
{
	return (struct tmem_handle){.object = 1, .index = 2, .pool = (uint32_t)pool};
}

/* Raw pages, whatever the version: all of one class. */
static const void *page_of(uint64_t version)
{
	for (size_t i = 0; i < TMEM_PAGE / 8; i++)
		page[i] = (version + 1) * 0x9e3779b97f4a7c15ull * (i + 1);
	return page;
}

static int put(const struct tmem_handle *h, uint64_t version)
{
	return tmem_put(host, h, page_of(version), TMEM_NONE, false);
}

static bool holds(const struct tmem_handle *h, uint64_t version)
{
	uint64_t into[TMEM_PAGE / 8];

	return tmem_get(host, h, into) == 1 && memcmp(into, page_of(version), TMEM_PAGE) == 0;
}

static uint32_t slot_of(const struct tmem_handle *h)
{
	tmem_ops.lock(host, h);
	struct tmem_found found = tmem_ops.find(host, h);
	tmem_ops.unlock(host, h);
	return found.ref;
}

static uint64_t stored(void)
{
	struct tmem_stats stats;

	tmem_get_stats(host, &stats);
	return stats.stored_pages;
}

/* The mover has copied the page; two puts later the page is in that slot again. */
static void mover_meets_a_slot_filled_again(void)
{
	struct tmem_handle h = handle_in_pool(tmem_new_pool(host, uuid, TMEM_PERSISTENT));
	struct moving m;
	uint32_t to;

	CHECK(put(&h, 1) == 1);
	uint32_t from = slot_of(&h);
	CHECK(take_copy(host, from, &m));
	CHECK(put(&h, 2) == 1 && slot_of(&h) != from);
	CHECK(put(&h, 3) == 1 && slot_of(&h) == from);
	CHECK(slots_alloc(&host->slabs, length_of(m.copy.packing), 0, &to) == 0);
	page_fill(host, to, &m.copy.handle, m.copy.packing, m.copy.bytes);
	CHECK(!publish_copy(host, &m, to));
	CHECK(holds(&h, 3));
}

/* Without a change in between the same steps move the page. */
static void mover_meets_nobody(void)
{
	struct tmem_handle h = handle_in_pool(tmem_new_pool(host, uuid, TMEM_PERSISTENT));
	struct moving m;
	uint32_t to;

	CHECK(put(&h, 1) == 1);
	CHECK(take_copy(host, slot_of(&h), &m));
	CHECK(slots_alloc(&host->slabs, length_of(m.copy.packing), 0, &to) == 0);
	page_fill(host, to, &m.copy.handle, m.copy.packing, m.copy.bytes);
	CHECK(publish_copy(host, &m, to));
	CHECK(slot_of(&h) == to && holds(&h, 1));
}

/* What another thread does while a put compresses its page. */
static void (*while_packing)(void);

void __real_codec_pack(struct scratch *, enum tmem_compress, const void *, unsigned, uint8_t *,
		       struct tmem_packed *);

void __wrap_codec_pack(struct scratch *s, enum tmem_compress compress, const void *from,
		       unsigned most, uint8_t *out, struct tmem_packed *p)
{
	void (*others)(void) = while_packing;

	while_packing = NULL;
	if (others)
		others();
	__real_codec_pack(s, compress, from, most, out, p);
}

static int build(const struct tmem_handle *h, unsigned flags, struct tmem_fresh *fresh)
{
	return tmem_ops.build(host, h, page_of(9), TMEM_NONE, flags, fresh);
}

/* A put that fails has replaced nothing: there is no slot to release. */
static int publish(const struct tmem_handle *h, const struct tmem_fresh *fresh)
{
	uint32_t old = UINT32_MAX;

	tmem_ops.lock(host, h);
	int err = tmem_ops.publish(host, h, fresh, &old);
	tmem_ops.unlock(host, h);
	CHECK(!err || old == 0);
	if (err)
		tmem_ops.abandon(host, fresh);
	return err;
}

static void put_meets_the_end_of_its_pool(void)
{
	int pool = tmem_new_pool(host, uuid, TMEM_PERSISTENT);
	struct tmem_handle h = handle_in_pool(pool);
	struct tmem_fresh fresh;

	CHECK(build(&h, 0, &fresh) == 0);
	CHECK(tmem_destroy_pool(host, h.pool) == 0);
	CHECK(publish(&h, &fresh) == -ENOSPC);
	CHECK(stored() == 0 && host->pools[pool].pages == 0);
}

static void put_meets_the_next_pool_of_its_number(void)
{
	int pool = tmem_new_pool(host, uuid, TMEM_PERSISTENT);
	struct tmem_handle h = handle_in_pool(pool);
	struct tmem_fresh fresh;

	CHECK(build(&h, 0, &fresh) == 0);
	CHECK(tmem_destroy_pool(host, h.pool) == 0);
	CHECK(tmem_new_pool(host, uuid, TMEM_PERSISTENT) == pool);
	CHECK(put(&h, 1) == 1);
	CHECK(publish(&h, &fresh) == -ENOSPC);
	CHECK(holds(&h, 1) && stored() == 1);
}

static uint32_t changing_pool;

static void pool_is_made_anew(void)
{
	CHECK(tmem_destroy_pool(host, changing_pool) >= 0);
	CHECK(tmem_new_pool(host, uuid, TMEM_PERSISTENT) == (int)changing_pool);
}

/* A put takes its time: to compress, and to wait for room. */
static void put_compresses_into_the_next_pool_of_its_number(void)
{
	struct tmem_handle h = handle_in_pool(tmem_new_pool(host, uuid, TMEM_PERSISTENT));

	changing_pool = h.pool;
	while_packing = pool_is_made_anew;
	CHECK(tmem_put(host, &h, page_of(1), TMEM_LZ4, false) == 0 && !while_packing);
	CHECK(stored() == 0);
}

static void fill_the_host(int cache)
{
	struct tmem_stats stats;

	for (uint32_t i = 0; i < 1000; i++) {
		struct tmem_handle h = {.index = i, .pool = (uint32_t)cache};
		CHECK(put(&h, i) == 1);
		tmem_get_stats(host, &stats);
		if (stats.evicted_pages)
			return;
	}
	check(false, "full in the end");
}

/* Evicting takes locks and may wait: whoever must not comes back. */
static void put_that_must_not_wait_evicts_nothing(void)
{
	struct tmem_handle h = handle_in_pool(tmem_new_pool(host, uuid, TMEM_PERSISTENT));
	struct tmem_fresh fresh;

	tmem_set_limit(host, 1u << 20);
	fill_the_host(tmem_new_pool(host, uuid, 0));
	uint64_t before = stored();
	int err;
	while ((err = build(&h, TMEM_NOWAIT, &fresh)) == 0)
		h.index++;
	CHECK(err == -EAGAIN && stored() == before);
	CHECK(build(&h, 0, &fresh) == 0 && stored() < before);
}

/* A page whose gets remove it, and what the other thread does to it between the next get's copy
 * and its removal. */
static struct tmem_handle contended;
static void (*meanwhile)(void);

int __real_codec_unpack(struct scratch *, uint8_t, const void *, unsigned, void *);

int __wrap_codec_unpack(struct scratch *s, uint8_t codec, const void *bytes, unsigned length,
			void *to)
{
	void (*others)(void) = meanwhile;

	meanwhile = NULL;
	if (others)
		others();
	return __real_codec_unpack(s, codec, bytes, length, to);
}

static void contend(void (*others)(void))
{
	contended = handle_in_pool(tmem_new_pool(host, uuid,
						 TMEM_PERSISTENT | TMEM_EXCLUSIVE_GETS));
	CHECK(put(&contended, 1) == 1);
	meanwhile = others;
}

/* The version that a get answers; 0: none. */
static uint64_t got(void)
{
	uint64_t into[TMEM_PAGE / 8], version = 1;

	if (tmem_get(host, &contended, into) == 0)
		return 0;
	while (version < 3 && memcmp(into, page_of(version), TMEM_PAGE))
		version++;
	CHECK(version < 3);
	return version;
}

static void put_newer(void)
{
	CHECK(put(&contended, 2) == 1);
}

static void get_older(void)
{
	CHECK(got() == 1);
}

/* Its answer may be either; the newer page is the answer or stays, and is not dropped unseen. */
static void get_that_removes_meets_a_put(void)
{
	contend(put_newer);
	uint64_t first = got();
	CHECK(!meanwhile && first != 0);
	CHECK(first == 2 || got() == 2);
	CHECK(got() == 0 && stored() == 0);
}

/* One of the two has the page. */
static void get_that_removes_meets_another(void)
{
	contend(get_older);
	CHECK(got() == 0 && !meanwhile);
	CHECK(stored() == 0);
}

static const void *text_of(uint64_t version)
{
	for (size_t i = 0; i < TMEM_PAGE / 8; i++)
		page[i] = version << 8 | i % 16;
	return page;
}

static int put_text(const struct tmem_handle *h, uint64_t version)
{
	return tmem_put(host, h, text_of(version), TMEM_LZ4, false);
}

static bool holds_text(const struct tmem_handle *h, uint64_t version)
{
	uint64_t into[TMEM_PAGE / 8];

	return tmem_get(host, h, into) == 1 && memcmp(into, text_of(version), TMEM_PAGE) == 0;
}

static struct tmem_stats figures(void)
{
	struct tmem_stats stats;

	tmem_get_stats(host, &stats);
	return stats;
}

/* The page was copied to be compressed, and is another one when that is done. */
static void compression_meets_a_put(void)
{
	struct tmem_handle h = handle_in_pool(tmem_new_pool(host, uuid, TMEM_PERSISTENT));
	struct moving m;

	tmem_set_staging(host, true);
	CHECK(put_text(&h, 1) == 1);
	CHECK(take_copy(host, slot_of(&h), &m));
	CHECK(put_text(&h, 2) == 1);
	CHECK(pack(host, &m, TMEM_LZ4) == GONE);
	CHECK(holds_text(&h, 2) && stored() == 1);
	CHECK(tmem_flush(host, &h) == 1 && figures().live_slot_bytes == 0);
}

/* Letters without order, which LZ4 leaves as they are and zstd halves. */
static const void *letters_of(uint64_t version)
{
	uint64_t x = version + 1;

	for (size_t i = 0; i < TMEM_PAGE; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		((char *)page)[i] = (char)('a' + (x >> 60));
	}
	return page;
}

static int put_letters(const struct tmem_handle *h, uint64_t version)
{
	return tmem_put(host, h, letters_of(version), TMEM_LZ4, false);
}

static bool holds_letters(const struct tmem_handle *h, uint64_t version)
{
	uint64_t into[TMEM_PAGE / 8];

	return tmem_get(host, h, into) == 1 && memcmp(into, letters_of(version), TMEM_PAGE) == 0;
}

static int recompress(const struct tmem_handle *h)
{
	return tmem_ops.recompress(host, h, TMEM_ZSTD);
}

static struct tmem_handle recompressed;

static void put_other_letters(void)
{
	CHECK(put_letters(&recompressed, 2) == 1);
}

static void flush_letters(void)
{
	CHECK(tmem_flush(host, &recompressed) == 1);
}

static void move_letters(void)
{
	struct moving m;
	uint32_t to;

	CHECK(take_copy(host, slot_of(&recompressed), &m));
	CHECK(slots_alloc(&host->slabs, length_of(m.copy.packing), 0, &to) == 0);
	page_fill(host, to, &m.copy.handle, m.copy.packing, m.copy.bytes);
	CHECK(publish_copy(host, &m, to));
	slots_release(&host->slabs, m.from.ref);
}

/* What the other thread does when the page was copied and is being compressed again. */
static void recompress_while(void (*others)(void))
{
	recompressed = handle_in_pool(tmem_new_pool(host, uuid, TMEM_PERSISTENT));
	CHECK(put_letters(&recompressed, 1) == 1);
	while_packing = others;
	CHECK(recompress(&recompressed) == 0 && !while_packing);
	CHECK(figures().recompressed_pages == 0 && figures().recompress_saved == 0);
}

static void recompression_meets_a_put(void)
{
	recompress_while(put_other_letters);
	CHECK(holds_letters(&recompressed, 2) && stored() == 1);
	CHECK(tmem_flush(host, &recompressed) == 1 && figures().live_slot_bytes == 0);
}

static void recompression_meets_a_flush(void)
{
	recompress_while(flush_letters);
	CHECK(stored() == 0 && figures().live_slot_bytes == 0);
}

static void recompression_meets_the_mover(void)
{
	recompress_while(move_letters);
	CHECK(holds_letters(&recompressed, 1) && recompress(&recompressed) == 1);
	CHECK(holds_letters(&recompressed, 1) && stored() == 1);
}

static void recompression_meets_the_next_pool_of_its_number(void)
{
	recompressed = handle_in_pool(tmem_new_pool(host, uuid, TMEM_PERSISTENT));
	changing_pool = recompressed.pool;
	CHECK(put_letters(&recompressed, 1) == 1);
	while_packing = pool_is_made_anew;
	CHECK(recompress(&recompressed) == 0 && !while_packing);
	CHECK(stored() == 0 && figures().live_slot_bytes == 0);
}

/* The copy keeps the number of the page: a put that is older than it stays older. */
static void recompression_keeps_the_sequence_number(void)
{
	struct tmem_handle h = handle_in_pool(tmem_new_pool(host, uuid, TMEM_PERSISTENT));

	CHECK(put_letters(&h, 1) == 1);
	uint32_t before = slot_of(&h);
	uint64_t seq = arena_slot(&host->arena, before)->seq;
	CHECK(recompress(&h) == 1 && slot_of(&h) != before);
	CHECK(arena_slot(&host->arena, slot_of(&h))->seq == seq);
	CHECK(codec_of(arena_slot(&host->arena, slot_of(&h))->packing) == CODEC_ZSTD);
	CHECK(arena_slot(&host->arena, before)->state == 0);
}

static uint32_t taken;

static void *give_back_later(void *unused)
{
	sleep_ms(2);
	staging_return(&host->slabs, taken, false);
	return unused;
}

/* All that is staged is in another thread's hands; without it there is no room. */
static void put_waits_for_staged_pages(void)
{
	struct tmem_handle h = handle_in_pool(tmem_new_pool(host, uuid, TMEM_PERSISTENT));
	pthread_t other;

	tmem_set_staging(host, true);
	for (h.index = 0; h.index < 15; h.index++)
		CHECK(put_text(&h, h.index) == 1);
	tmem_set_limit(host, figures().mem_used_total + SLAB_BYTES);
	taken = staging_take(&host->slabs, true);
	CHECK(taken && pthread_create(&other, NULL, give_back_later, NULL) == 0);
	CHECK(put_text(&h, h.index) == 1);
	pthread_join(other, NULL);
	for (uint32_t i = h.index = 0; i < 16; h.index = ++i)
		CHECK(holds_text(&h, i));
	CHECK(figures().staged_pages == 0 && figures().no_mem_puts == 0);
}

static const struct {
	const char *name;
	void (*play)(void);
} cases[] = {
	{"compression_meets_a_put", compression_meets_a_put},
	{"get_that_removes_meets_a_put", get_that_removes_meets_a_put},
	{"get_that_removes_meets_another", get_that_removes_meets_another},
	{"mover_meets_a_slot_filled_again", mover_meets_a_slot_filled_again},
	{"mover_meets_nobody", mover_meets_nobody},
	{"put_compresses_into_the_next_pool_of_its_number",
	 put_compresses_into_the_next_pool_of_its_number},
	{"put_meets_the_end_of_its_pool", put_meets_the_end_of_its_pool},
	{"put_meets_the_next_pool_of_its_number", put_meets_the_next_pool_of_its_number},
	{"put_that_must_not_wait_evicts_nothing", put_that_must_not_wait_evicts_nothing},
	{"put_waits_for_staged_pages", put_waits_for_staged_pages},
	{"recompression_keeps_the_sequence_number", recompression_keeps_the_sequence_number},
	{"recompression_meets_a_flush", recompression_meets_a_flush},
	{"recompression_meets_a_put", recompression_meets_a_put},
	{"recompression_meets_the_mover", recompression_meets_the_mover},
	{"recompression_meets_the_next_pool_of_its_number",
	 recompression_meets_the_next_pool_of_its_number},
};

int main(int argc, char **argv)
{
	if (argc != 3 || tmem_create(argv[1], "", &host))
		return 2;
	tmem_set_limit(host, 64u << 20);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (strcmp(cases[i].name, argv[2]) == 0) {
			cases[i].play();
			tmem_close(host);
			return 0;
		}
	return 2;
}
