/* SPDX-License-Identifier: BSD-3-Clause */
/* Ephemeral pages go when others need room, the oldest put first, with a second chance for those that
 * were got since. */
#ifndef PRESWAPD_EVICTION_H
#define PRESWAPD_EVICTION_H

#include "parts.h"

/* An ephemeral page was put: it takes its place in the queue. */
void eviction_enqueue(struct tmem_host *, const struct tmem_handle *, uint64_t seq);
/* Evicts ephemeral pages, `most` of them; how many there were. */
uint64_t eviction_evict(struct tmem_host *, uint64_t most);
/* A pool's own pages go until so many bytes more lie within its limit.  False: they never would. */
bool eviction_fit_pool(struct tmem_host *, struct pool *, uint64_t more);
/* Sweeps stale entries out of the queue. */
void eviction_tidy(struct tmem_host *);

#endif
