/* SPDX-License-Identifier: BSD-3-Clause */
/* Threads on a host that is always sparse, so that the mover never rests, that stages and recompresses;
 * a program for tests.
 *
 * Each thread owns some handles: after its put a get finds that version, after its flush nothing.
 * Everybody reads everybody's pages: a page names its handle and version, the rest follows.
 * Ends with 0 when nothing was wrong; built with the sanitizers, they speak up too.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "named_pages.h"

#define WRITERS 3u
#define HANDLES 48u
#define BALLAST 1000u                  /* the first object of the pages that nobody touches */

static struct tmem_host *host;
static unsigned rounds;
static bool done;

static struct tmem_handle handle_at(uint32_t handle)
{
	return (struct tmem_handle){.object = handle % 16, .index = handle / 16};
}

/* The version that is stored, or 0. */
static uint64_t look(uint32_t handle)
{
	uint64_t page[TMEM_PAGE / 8], expected[TMEM_PAGE / 8];
	struct tmem_handle h = handle_at(handle);
	int found = tmem_get(host, &h, page);

	if (found == 0)
		return 0;
	make_page(expected, handle, found == 1 ? page[1] : 0, 3000);
	if (found < 0 || memcmp(page, expected, TMEM_PAGE))
		fail("a page that nobody put", handle, page[1]);
	return page[1];
}

static void write_once(uint32_t handle, uint64_t version, bool flush)
{
	uint64_t page[TMEM_PAGE / 8];
	struct tmem_handle h = handle_at(handle);

	if (flush) {
		tmem_flush(host, &h);
		version = 0;
	} else {
		make_page(page, handle, version, 3000);
		if (tmem_put(host, &h, page, version & 1 ? TMEM_LZ4 : TMEM_NONE,
			     false) != 1)
			fail("a rejected put", handle, version);
	}
	if (look(handle) != version)
		fail("not what was put last", handle, version);
}

static bool nothing_moved(void)
{
	struct tmem_stats stats;

	tmem_get_stats(host, &stats);
	return stats.moved_pages == 0;
}

/* On a busy machine the mover may have had no processor by then: so much longer. */
#define PATIENCE 50u

static void *work(void *number)
{
	unsigned me = (unsigned)(uintptr_t)number, seed = me + 1;

	for (unsigned round = 1;
	     round <= rounds || (round <= rounds * PATIENCE && nothing_moved()); round++) {
		uint32_t r = (uint32_t)rand_r(&seed);
		write_once(r / 4 % (HANDLES / WRITERS) * WRITERS + me, round, r % 4 == 0);
		look(r % HANDLES);
	}
	return NULL;
}

/* As in a server, who compresses pauses, and who maintains does not wait for that. */
static void *settle(void *unused)
{
	while (!__atomic_load_n(&done, __ATOMIC_RELAXED))
		tmem_settle(host, 1);
	return unused;
}

static void *recompress(void *unused)
{
	unsigned seed = 1;

	while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
		struct tmem_handle h = handle_at((uint32_t)rand_r(&seed) % HANDLES);
		tmem_recompress(host, &h, TMEM_ZSTD);
		tmem_pack(host);
	}
	return unused;
}

static void *maintain(void *unused)
{
	struct tmem_stats stats;

	while (!__atomic_load_n(&done, __ATOMIC_RELAXED)) {
		tmem_maintain(host, true);
		tmem_get_stats(host, &stats);
	}
	return unused;
}

/* Slabs of seventeen classes, filled and flushed but for the last page: they cannot be
 * emptied, nor trimmed. */
static void fill_ballast(void)
{
	uint64_t page[TMEM_PAGE / 8];
	const struct classes *classes = arena_classes();

	for (unsigned class = 4; class < 21; class++) {
		for (unsigned i = 0; i < classes->slots[class]; i++) {
			struct tmem_handle h = {.object = BALLAST + class, .index = i};
			make_page(page, i, class, classes->bytes[class] - 32u);
			if (tmem_put(host, &h, page, TMEM_LZ4, false) != 1)
				fail("no ballast", i, class);
		}
		for (unsigned i = 0; i + 1 < classes->slots[class]; i++) {
			struct tmem_handle h = {.object = BALLAST + class, .index = i};
			tmem_flush(host, &h);
		}
	}
}

int main(int argc, char **argv)
{
	pthread_t threads[WRITERS], maintainers[3];
	void *(*const works[])(void *) = {maintain, settle, recompress};
	const uint8_t uuid[16] = {0};
	struct tmem_stats stats;

	if (argc != 3 || tmem_create(argv[1], "", &host))
		return 2;
	rounds = (unsigned)atoi(argv[2]);
	tmem_set_limit(host, 64u << 20);
	tmem_new_pool(host, uuid, 1);
	fill_ballast();
	tmem_set_staging(host, true);
	for (size_t i = 0; i < 3; i++)
		pthread_create(&maintainers[i], NULL, works[i], NULL);
	for (size_t i = 0; i < WRITERS; i++)
		pthread_create(&threads[i], NULL, work, (void *)i);
	for (size_t i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&done, true, __ATOMIC_RELAXED);
	for (size_t i = 0; i < 3; i++)
		pthread_join(maintainers[i], NULL);
	tmem_get_stats(host, &stats);
	printf("%llu\n", (unsigned long long)stats.moved_pages);
	tmem_close(host);
	return 0;
}
