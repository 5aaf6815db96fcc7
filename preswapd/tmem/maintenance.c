/* SPDX-License-Identifier: BSD-3-Clause */
/* Maintenance of a host, by threads of its user: staged pages are compressed, and memory is given
 * back. */
#include <errno.h>

#include "clock.h"
#include "eviction.h"
#include "mover.h"
#include "staging.h"

/* Pages evicted before the next look at the limit; fewer than a slab has may free no memory. */
#define EVICT_AT_ONCE 4096u
#define EVICT_AT_LEAST 16u

/* Between two slabs of staged pages while puts come in: a slab takes some 0.1 ms, so that with the
 * longest pause the thread uses 0.6 % of a processor that others want. */
#define SHORTEST_PAUSE_MS 1u
#define LONGEST_PAUSE_MS 16u
/* Before another try at a page that is still being put. */
#define RETRY_MS 10u
/* At most, at one that finds no room: a host may be short of memory for hours. */
#define LONGEST_RETRY_MS 1000u
/* How long staged pages wait for the rest of their slab to be filled. */
#define FILL_MS 10u

/* A thread that had to wait for a processor takes it from others, maybe from those who put. */
static unsigned next_pause(unsigned pause, uint64_t took_ns, uint64_t worked_ns)
{
	if (took_ns > worked_ns + worked_ns / 4)
		return pause < LONGEST_PAUSE_MS ? pause * 2 : pause;
	return pause > SHORTEST_PAUSE_MS ? pause / 2 : pause;
}

static unsigned next_retry(unsigned before)
{
	if (before < RETRY_MS)
		return RETRY_MS;
	return before < LONGEST_RETRY_MS / 2 ? 2 * before : LONGEST_RETRY_MS;
}

/* While puts come in it pauses after each slab, for longer where processors are busy, but not when
 * staging would soon have to stop.  A low priority instead of pauses would not do: the thread would
 * be kept from its processor with a page's lock held. */
void tmem_settle(struct tmem_host *h, unsigned milliseconds)
{
	bool also_open = !milliseconds || !staging_wait(&h->slabs, milliseconds, FILL_MS);
	uint64_t puts = count_of(&h->count.good_puts);
	unsigned pause = SHORTEST_PAUSE_MS;
	int done = 1;

	while (done == 1) {
		uint64_t began = monotonic_ns();
		uint64_t worked = thread_cpu_ns();
		done = mover_settle(h, also_open);
		pause = next_pause(pause, monotonic_ns() - began, thread_cpu_ns() - worked);
		uint64_t before = puts;
		puts = count_of(&h->count.good_puts);
		if (puts != before && !staging_presses(&h->slabs))
			sleep_ms(pause);
	}
	h->retry_ms = done == -ENOSPC ? next_retry(h->retry_ms) : RETRY_MS;
	if (done)
		sleep_ms(h->retry_ms);
}

void tmem_give_back(struct tmem_host *h)
{
	slabs_give_back(&h->slabs, true);
}

bool tmem_pack(struct tmem_host *h)
{
	return mover_pack(h);
}

/* What is staged when it is called, and not what guests write after that. */
static void settle_all(struct tmem_host *h)
{
	uint32_t slabs = staging_slabs(&h->slabs);

	while (slabs-- && mover_settle(h, true) == 1)
		;
}

void tmem_compact(struct tmem_host *h)
{
	mover_compact(h, false);
}

static uint64_t still_over_limit(struct tmem_host *h)
{
	if (slabs_over_limit(&h->slabs))
		slabs_give_back(&h->slabs, true);
	return slabs_over_limit(&h->slabs);
}

/* Evicts no more than must go in any case: a page frees at most its own size. */
static uint64_t evict_for(struct tmem_host *h, uint64_t bytes)
{
	uint64_t pages = bytes / TMEM_PAGE;

	if (pages < EVICT_AT_LEAST)
		pages = EVICT_AT_LEAST;
	return eviction_evict(h, pages < EVICT_AT_ONCE ? pages : EVICT_AT_ONCE);
}

/* The limit was lowered: memory without pages goes first, then what denser slabs free, then the
 * oldest ephemeral pages; persistent ones never. */
static void fit_limit(struct tmem_host *h)
{
	uint64_t over = still_over_limit(h);

	while (over) {
		mover_compact(h, false);
		over = still_over_limit(h);
		if (over && !evict_for(h, over))
			break;
	}
}

void tmem_make_spare(struct tmem_host *h)
{
	int64_t more = slabs_lacking(&h->slabs);

	while (more > 0 && count_of(&h->count.ephemeral_pages)) {
		mover_compact(h, false);
		more = slabs_lacking(&h->slabs);
		if (more > 0 && !evict_for(h, (uint64_t)more))
			break;
	}
}

uint64_t tmem_evict_all(struct tmem_host *h)
{
	uint64_t evicted = eviction_evict(h, count_of(&h->count.ephemeral_pages));

	slabs_give_back(&h->slabs, true);
	return evicted;
}

void tmem_maintain(struct tmem_host *h, bool all)
{
	if (all || slabs_over_limit(&h->slabs))
		settle_all(h);
	fit_limit(h);
	mover_compact(h, all);
	slabs_give_back(&h->slabs, all || slabs_over_limit(&h->slabs));
	eviction_tidy(h);
}
