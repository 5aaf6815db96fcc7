/* SPDX-License-Identifier: BSD-3-Clause */
/* Threads on pools of all kinds under limits that swing, the host's and pools' own; a program for tests.
 *
 * Each thread owns some handles and puts rising versions.  A persistent page is the one that was
 * put last; an ephemeral one too, or nothing; a private ephemeral page is had by one get only,
 * whoever asks.  One shared pool is joined and left all the time, and pools come and go.
 * Ends with 0 when nothing was wrong; built with the sanitizers, they speak up too.
 */
#include <pthread.h>

#include "named_pages.h"

#define THREADS 3u
#define OWN 32u
#define HANDLES (OWN * THREADS)
#define LEAST (10u << 10)

enum { PERSISTENT, CACHE, SHARED, POOLS };

static struct tmem_host *host;
static uint32_t pools[POOLS];
static unsigned rounds;
static bool done;
static uint8_t *had;                   /* [round][handle]: a get has taken that version */
static const uint8_t none[16], secret[16] = "one secret of 16";

static struct tmem_handle handle_at(unsigned pool, uint32_t handle)
{
	return (struct tmem_handle){.object = handle % 16, .index = handle / 16, .pool = pool};
}

static bool put(uint32_t pool, uint32_t handle, uint64_t version)
{
	uint64_t page[TMEM_PAGE / 8];
	struct tmem_handle h = handle_at(pool, handle);

	make_page(page, handle, version, 2500);
	return tmem_put(host, &h, page, version & 1 ? TMEM_LZ4 : TMEM_NONE, false) == 1;
}

/* The version that is stored, or 0. */
static uint64_t look(uint32_t pool, uint32_t handle)
{
	uint64_t page[TMEM_PAGE / 8], expected[TMEM_PAGE / 8];
	struct tmem_handle h = handle_at(pool, handle);
	int found = tmem_get(host, &h, page);

	if (found == 0)
		return 0;
	make_page(expected, handle, found == 1 ? page[1] : 0, 2500);
	if (found < 0 || memcmp(page, expected, TMEM_PAGE))
		fail("a page that nobody put", handle, page[1]);
	return page[1];
}

static void take(uint32_t handle)
{
	uint64_t version = look(pools[CACHE], handle);

	if (version && __atomic_exchange_n(&had[version * HANDLES + handle], 1, __ATOMIC_RELAXED))
		fail("had by two gets", handle, version);
}

static void use_pool_of_a_moment(uint32_t handle, uint64_t version)
{
	int pool = tmem_new_pool(host, none, version & 1 ? TMEM_PERSISTENT : 0);

	if (pool < 0)
		fail("no pool", handle, version);
	bool stored = put((uint32_t)pool, handle, version);
	uint64_t found = look((uint32_t)pool, handle);
	if (found && (!stored || found != version))
		fail("another pool's page", handle, found);
	if (tmem_destroy_pool(host, (uint32_t)pool) < 0)
		fail("no such pool", handle, version);
}

static void use_shared_pool(uint32_t handle, uint64_t version)
{
	if (tmem_new_pool(host, secret, TMEM_SHARED) != (int)pools[SHARED])
		fail("not joined", handle, version);
	bool stored = put(pools[SHARED], handle, version);
	uint64_t found = look(pools[SHARED], handle);
	if (found && (!stored || found != version))
		fail("not what was put last", handle, found);
	if (tmem_destroy_pool(host, pools[SHARED]) != 0)
		fail("others' pool is gone", handle, version);
}

static void *work(void *number)
{
	unsigned me = (unsigned)(uintptr_t)number, seed = me + 1;

	for (unsigned round = 1; round <= rounds; round++) {
		uint32_t r = (uint32_t)rand_r(&seed), mine = r / 8 % OWN * THREADS + me;
		bool stored = put(pools[PERSISTENT], mine, round);
		if (look(pools[PERSISTENT], mine) != (stored ? round : 0))
			fail("not what was put last", mine, round);
		put(pools[CACHE], mine, round);
		take(r % HANDLES);
		if (r % 8 == 0)
			use_pool_of_a_moment(mine, round);
		if (r % 8 == 1)
			use_shared_pool(mine, round);
	}
	return NULL;
}

static void *swing(void *unused)
{
	static const uint64_t limits[] = {200u << 10, 2u << 20, 120u << 10, 400u << 10};
	static const uint64_t own_limits[] = {UINT64_MAX, LEAST, 30u << 10};
	struct tmem_stats stats;

	for (unsigned i = 0; !__atomic_load_n(&done, __ATOMIC_RELAXED); i++) {
		tmem_set_limit(host, limits[i / 16 % 4]);
		tmem_set_max_bytes(host, pools[CACHE], own_limits[i / 8 % 3]);
		tmem_set_max_bytes(host, pools[SHARED], own_limits[i / 5 % 3]);
		tmem_maintain(host, i % 2);
		tmem_settle(host, 1);
		tmem_get_stats(host, &stats);
	}
	return unused;
}

static void make_pools(void)
{
	pools[PERSISTENT] = (uint32_t)tmem_new_pool(host, none, TMEM_PERSISTENT);
	pools[CACHE] = (uint32_t)tmem_new_pool(host, none, 0);
	pools[SHARED] = (uint32_t)tmem_new_pool(host, secret, TMEM_SHARED);
}

static void check_quiet(void)
{
	struct tmem_pool_stats pool;
	struct tmem_stats stats;

	tmem_set_max_bytes(host, pools[CACHE], LEAST);
	tmem_get_pool_stats(host, pools[CACHE], &pool);
	if (pool.bytes > LEAST || !pool.evicted_by_itself)
		fail("a pool beyond its limit", pools[CACHE], pool.bytes);
	for (unsigned i = 0; i < POOLS; i++)
		tmem_destroy_pool(host, pools[i]);
	tmem_maintain(host, true);
	tmem_get_stats(host, &stats);
	if (stats.stored_pages || stats.ephemeral_pages || stats.live_slot_bytes)
		fail("pages of no pool", 0, stats.stored_pages);
	printf("%llu\n", (unsigned long long)stats.evicted_pages);
}

int main(int argc, char **argv)
{
	pthread_t threads[THREADS], swinger;

	if (argc != 3 || tmem_create(argv[1], "", &host))
		return 2;
	tmem_set_staging(host, true);
	rounds = (unsigned)atoi(argv[2]);
	had = calloc(rounds + 1, HANDLES);
	make_pools();
	tmem_set_limit(host, 2u << 20);
	pthread_create(&swinger, NULL, swing, NULL);
	for (size_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, work, (void *)i);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	__atomic_store_n(&done, true, __ATOMIC_RELAXED);
	pthread_join(swinger, NULL);
	check_quiet();
	tmem_close(host);
	free(had);
	return 0;
}
