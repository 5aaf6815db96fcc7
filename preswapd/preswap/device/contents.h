/* SPDX-License-Identifier: BSD-3-Clause */
/* What the pages of an extent are, and hold: for a save, and for the restore of one.
 *
 * The device is shut to its clients meanwhile.  What the server does by itself goes on: pages move
 * between memory and disk, which changes nothing of what they hold.
 */
#ifndef PRESWAPD_CONTENTS_H
#define PRESWAPD_CONTENTS_H

#include "device.h"

/* UNKNOWN stands for lost pages, too: nobody knows what they held. */
enum content { CONTENT_UNKNOWN = 0, CONTENT_ZEROS = 1, CONTENT_BYTES = 2 };

#define CONTENTS_SPACE ((1u + EXTENT_PAGES) * PAGE_BYTES)
#define CONTENTS_PACKED (EXTENT_PAGES * (1u + 2u + PAGE_BYTES))

struct contents {
	uint64_t first;                /* page of the extent */
	uint32_t pages;                /* that it has */
	uint32_t bytes, zeros, lost;   /* of these */
	uint32_t packed;               /* and of those that are in `packed_space` and not in `space` */
	uint32_t packed_length;        /* bytes in there */
	uint8_t *space;                /* CONTENTS_SPACE, aligned: a byte for each page, what it is, and right
					* behind them those that are CONTENT_BYTES, in order and aligned */
	uint8_t *packed_space;         /* CONTENTS_PACKED: pages as tmem has them compressed.  A byte for each
					* page, its codec, or 0 where it is not in there; then of each that is, in order, its
					* length in 2 bytes, and so many bytes */
};

static inline uint8_t *contents_kinds(const struct contents *c)
{
	return c->space + PAGE_BYTES - c->pages;
}

static inline uint8_t *contents_bytes(const struct contents *c)
{
	return c->space + PAGE_BYTES;
}

/* Without `packed_space` every page is in `space`.
 *
 * The first extent from `*page` on, the first one of an extent, with pages in the zone, or else outside of it,
 * of which something is known, or that were lost; the others are CONTENT_UNKNOWN in it.  `*page` becomes the
 * page to go on with; `pages` is 0 where some 10 ms of looking have found none.  0, or what a disk
 * read failed with. */
int contents_read(struct device *, uint64_t *page, bool zone, struct contents *);
/* Pages of which nothing is known become what is in there, or the zone's pages do, which are bytes all.
 * `bytes` and `zeros` are counted.  0; -EINVAL, and nothing was changed: there are others, or other than `length`
 * bytes; or what a disk write failed with. */
int contents_write(struct device *, bool zone, struct contents *, uint64_t length);
/* The same of what is in `packed_space`, `packed_length` bytes, all of it outside of the zone; `packed` is
 * counted, and `space` is written over. */
int contents_write_packed(struct device *, struct contents *);

#endif
