/* SPDX-License-Identifier: BSD-3-Clause */
/* How long requests took: a histogram of four buckets to each doubling, from 1 us to 9 min.
 *
 * Two readings of the clock and one atomic addition a request, some 50 ns. */
#ifndef PRESWAPD_LATENCY_H
#define PRESWAPD_LATENCY_H

#include <stdint.h>

#include "clock.h"

#define LATENCY_SHORTEST 10u           /* 2^10 ns and less are the first bucket */
#define LATENCY_BUCKETS 117u            /* QEMU waits 5 min for a server that is away */

struct latency {
	uint64_t counts[LATENCY_BUCKETS];      /* atomic */
	uint64_t nanoseconds;                  /* of all together; atomic */
};

static inline unsigned latency_bucket(uint64_t ns)
{
	if (ns < 1u << LATENCY_SHORTEST)
		return 0;
	unsigned doubling = 63u - (unsigned)__builtin_clzll(ns);
	unsigned bucket = 1 + (doubling - LATENCY_SHORTEST) * 4 + (ns >> (doubling - 2) & 3);

	return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

static inline void latency_note(struct latency *l, uint64_t begun)
{
	uint64_t ns = monotonic_ns() - begun;

	__atomic_fetch_add(&l->counts[latency_bucket(ns)], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&l->nanoseconds, ns, __ATOMIC_RELAXED);
}

#endif
