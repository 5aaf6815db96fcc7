/* SPDX-License-Identifier: BSD-3-Clause */
/* Pages of tmem that nobody has touched for long are compressed once more, by a denser codec.
 *
 * Nothing is noted of single pages: a pass tries those that have become old enough since the pass
 * before, so that each is tried once, and again only after it was touched. */
#ifndef PRESWAPD_RECOMPRESS_H
#define PRESWAPD_RECOMPRESS_H

#include "device.h"

/* A pass, or a piece of it. */
struct recompress {
	enum tmem_compress compress;
	double since, before;          /* when the pages were touched last: seconds, CLOCK_MONOTONIC */
	uint64_t budget;               /* ns of a processor, after which it stops */
	uint64_t next;                 /* the page to go on with; at the end, how many there are */
	uint64_t recompressed, no_room;        /* pages; the latter were to be, and found no slot */
	uint64_t worked, took;         /* ns: with a processor, and in all */
};

/* Goes on with some pages, for a millisecond or so. */
void recompress_pages(struct device *, struct recompress *);

#endif
