/* SPDX-License-Identifier: BSD-3-Clause */
/* May the arena grow?  Memory beyond a cgroup's limit is no error but a SIGKILL, and the host's OOM
 * killer frees nothing by killing this process, as the arena outlives it: so who wants memory
 * asks here first. */
#ifndef PRESWAPD_HEADROOM_H
#define PRESWAPD_HEADROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CGROUPS_MAX 16u

struct headroom {
	uint64_t host_reserve;         /* bytes of MemAvailable that stay untouched; 0: not asked */
	int meminfo;
	int cgroups[CGROUPS_MAX][3];   /* limit, usage, statistics */
	size_t n_cgroups;
	uint64_t asked_at;             /* ns, CLOCK_MONOTONIC_COARSE */
	uint64_t room;                 /* what was there then, less what was taken since */
	bool refused;                  /* the last time: no second look before ASK_EVERY_NS */
};

void headroom_init(struct headroom *);
void headroom_set(struct headroom *, uint64_t host_reserve, const int (*cgroups)[3], size_t n);
void headroom_close(struct headroom *);
/* Whether the arena may grow by so many bytes; it then counts them as taken.  Reads /proc every
 * 100 ms, and at once when the room of the last time is used up: memory can be filled at some
 * hundred MiB in that time.  Called under the allocator's mutex. */
bool headroom_take(struct headroom *, uint64_t bytes);

#endif
