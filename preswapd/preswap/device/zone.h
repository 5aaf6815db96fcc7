/* SPDX-License-Identifier: BSD-3-Clause */
/* The scan zone: pages that guests read before they have written them, when they look for partitions
 * and file systems.  They are a plain file: never in tmem, P = DISK for good, so that the disk
 * file has them right, or zeros, after any reboot, and reading them is no error.
 */
#ifndef PRESWAPD_ZONE_H
#define PRESWAPD_ZONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ZONE_MOST 64u                  /* ranges */

struct zone_range {
	uint64_t first, end;           /* pages */
};

struct zone {
	uint32_t n;
	uint64_t low_end, high_first;  /* nothing of it is between the two: the most of a device */
	struct zone_range ranges[ZONE_MOST];   /* in order, none empty, none touching another */
};

/* The first range that ends behind the page; NULL: there is none. */
static inline const struct zone_range *zone_from(const struct zone *z, uint64_t page)
{
	for (uint32_t i = 0; i < z->n; i++)
		if (page < z->ranges[i].end)
			return &z->ranges[i];
	return NULL;
}

static inline bool zone_has(const struct zone *z, uint64_t page)
{
	if (page >= z->low_end && page < z->high_first)
		return false;
	const struct zone_range *r = zone_from(z, page);
	return r && page >= r->first;
}

/* Of `pages` pages, how many of the first are all in the zone, or all outside of it, as the very
 * first is. */
static inline uint64_t zone_run(const struct zone *z, uint64_t first, uint64_t pages)
{
	const struct zone_range *r = zone_from(z, first);
	uint64_t end = !r ? UINT64_MAX : first < r->first ? r->first : r->end;

	return end - first < pages ? end - first : pages;
}

#endif
