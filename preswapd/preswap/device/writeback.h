/* SPDX-License-Identifier: BSD-3-Clause */
/* Shrink: pages go from tmem to the disk file.  The kernel's preswap moved them into the guest's
 * own memory, which a host does not have. */
#ifndef PRESWAPD_WRITEBACK_H
#define PRESWAPD_WRITEBACK_H

#include "device.h"

struct writeback {
	uint64_t moved, lost;          /* pages */
	int err;                       /* what the disk failed with */
};

/* Of an extent, given by its first page: moves at most `most` pages of tmem that were not touched for so
 * many seconds; 0: any. */
void writeback_extent(struct device *, uint64_t extent, double seconds, uint64_t most,
		      struct writeback *);

/* Both look for such pages from `page` on, the first one of an extent, move those of the first extent that
 * has any, and return the page to go on with; the same after some 10 ms in which they found none. */
uint64_t writeback_idle(struct device *, uint64_t page, double seconds, uint64_t most,
			struct writeback *);
/* Weights, see weights.h, when they were taken last. */
struct heavy {
	uint8_t least;                 /* these go */
	uint8_t beside;                /* and these, beside them */
	uint64_t most;                 /* at least 1 */
};
uint64_t writeback_heavy(struct device *, uint64_t page, const struct heavy *, struct writeback *);

struct aged {
	double seq;                    /* the mean of its pages in tmem */
	uint64_t pages, extent;
};
/* The extents with pages in tmem, the coldest first: how many.  `to` has room for all extents.  Cold is here
 * what was put long ago, for a shrink, and not what epochs.h knows of it. */
size_t writeback_coldest(struct device *, struct aged *to);

#endif
