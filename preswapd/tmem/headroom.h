/* May the arena grow?  A memory cgroup's limit is not an errno but SIGKILL, and the host's OOM
 * killer frees nothing by killing us: so it is asked before, not after. */
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
	bool answer;
};

void headroom_init(struct headroom *);
void headroom_set(struct headroom *, uint64_t host_reserve, const int (*cgroups)[3], size_t n);
void headroom_close(struct headroom *);
/* Reads /proc at most every 100 ms; called under the allocator's mutex. */
bool headroom_there_is(struct headroom *);

#endif
