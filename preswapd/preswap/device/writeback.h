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
/* Moves at most `most` pages of tmem among [first, first + EXTENT_PAGES) to disk. */
void writeback_extent(struct device *, uint64_t first, uint64_t most, struct writeback *);

struct aged {
	double seq;                    /* the mean of its pages in tmem */
	uint64_t pages, extent;
};
/* The extents with pages in tmem, the coldest first: how many.  `to` has room for all extents. */
size_t writeback_coldest(struct device *, struct aged *to);

#endif
