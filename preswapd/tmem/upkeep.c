/* What a host needs done all the time, by threads of its user's: what is staged is compressed, and
 * memory is given back. */
#include "clock.h"
#include "eviction.h"
#include "mover.h"
#include "staging.h"

#define EVICT_AT_ONCE 256u                     /* before the next look at the limit ... */
#define EVICT_AT_LEAST 16u                     /* ... which a slab's pages may pay for */

/* Between two slabs of staged pages while puts come in: each takes some 0.1 ms.  The longest is a
 * share of 0.6 % of a processor that others want. */
#define SHORTEST_PAUSE_MS 1u
#define LONGEST_PAUSE_MS 16u
#define WAIT_MS 10u
#define COMPANY_MS 10u                         /* pages of a slab wait for the rest of it */

/* Who had to wait for a processor takes it from somebody, maybe from those who put. */
static unsigned next_pause(unsigned pause, uint64_t took_ns, uint64_t worked_ns)
{
	if (took_ns > worked_ns + worked_ns / 4)
		return pause < LONGEST_PAUSE_MS ? pause * 2 : pause;
	return pause > SHORTEST_PAUSE_MS ? pause / 2 : pause;
}

/* While puts come in it pauses after each slab, for longer where processors are busy, and takes
 * all of one before staging would have to stop.  A low priority would not do: it would be kept
 * from its processor with a page's lock held. */
void tmem_settle(struct tmem_host *h, unsigned milliseconds)
{
	bool also_open = !milliseconds || !staging_wait(&h->slabs, milliseconds, COMPANY_MS);
	uint64_t puts = count_of(&h->count.good_puts);
	unsigned pause = SHORTEST_PAUSE_MS;
	int done = 1;

	while (done == 1) {
		uint64_t began = monotonic_ns();
		uint64_t worked = thread_cpu_ns();
		done = mover_unstage(h, also_open);
		pause = next_pause(pause, monotonic_ns() - began, thread_cpu_ns() - worked);
		uint64_t before = puts;
		puts = count_of(&h->count.good_puts);
		if (puts != before && !staging_presses(&h->slabs))
			sleep_ms(pause);
	}
	if (done)
		sleep_ms(WAIT_MS);             /* for a put in flight, or for room */
}

/* What is staged by now, and not what guests go on to write. */
static void unstage_all(struct tmem_host *h)
{
	uint32_t slabs = staging_slabs(&h->slabs);

	while (slabs-- && mover_unstage(h, true) == 1)
		;
}

static uint64_t still_over_limit(struct tmem_host *h)
{
	if (slabs_over_limit(&h->slabs))
		slabs_give_back(&h->slabs, true);
	return slabs_over_limit(&h->slabs);
}

/* No more than must go at least: no page frees more than it is long. */
static unsigned evict_for(struct tmem_host *h, uint64_t bytes)
{
	uint64_t pages = bytes / TMEM_PAGE;

	if (pages < EVICT_AT_LEAST)
		pages = EVICT_AT_LEAST;
	return eviction_evict(h, pages < EVICT_AT_ONCE ? (unsigned)pages : EVICT_AT_ONCE);
}

/* The limit was lowered: memory without pages goes first, then what denser slabs free, then the
 * oldest ephemeral pages; persistent ones never. */
static void make_good(struct tmem_host *h)
{
	uint64_t over = still_over_limit(h);

	while (over) {
		mover_compact(h, false);
		over = still_over_limit(h);
		if (over && !evict_for(h, over))
			break;
	}
}

void tmem_maintain(struct tmem_host *h, bool all)
{
	if (all || slabs_over_limit(&h->slabs))
		unstage_all(h);
	make_good(h);
	mover_compact(h, all);
	slabs_give_back(&h->slabs, all || slabs_over_limit(&h->slabs));
	eviction_tidy(h);
}
