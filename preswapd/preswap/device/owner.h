/* SPDX-License-Identifier: BSD-3-Clause */
/* What the owner of a device does with it beside its clients' requests.
 *
 * Each call is a flight of its own, so that a removal waits for it; longer work is cut into several,
 * because a new connection's first request waits for each.  Functions return 0 or a negative
 * errno: -ESHUTDOWN, the device is being removed.
 */
#ifndef PRESWAPD_OWNER_H
#define PRESWAPD_OWNER_H

#include "contents.h"
#include "recompress.h"
#include "weights.h"
#include "writeback.h"

/* Written through to disk, and synced. */
int owner_write_page_zero(struct device *, const uint8_t *page);
int owner_writeback(struct device *, uint64_t extent, double seconds, uint64_t most,
		    struct writeback *);
/* As in writeback.h, from `*page` on, which becomes the page that they return. */
int owner_writeback_idle(struct device *, uint64_t *page, double seconds, uint64_t most,
			 struct writeback *);
int owner_writeback_heavy(struct device *, uint64_t *page, const struct heavy *,
			  struct writeback *);
/* See weights.h. */
int owner_weigh(struct device *, uint16_t since, uint64_t pages_of[WEIGHT_STEPS]);
/* Pages in tmem that were not touched for so many seconds, and the bytes that they take: added to what is
 * in each of n. */
struct older {
	double seconds;
	uint64_t pages, bytes;
};
int owner_ages(struct device *, struct older *, size_t n);
/* Pages in tmem or on disk, the zone's not, by the time since they were touched: as in
 * epochs.reused. */
int owner_idle_pages(struct device *, uint64_t pages_of[REUSE_STEPS]);
/* Adds the reads that the sampler has looked at. */
int owner_reads(struct device *, struct distances *sum);
/* After epochs_change_over(). */
int owner_renumber(struct device *);
/* See place_forget_left(). */
int owner_forget_left(struct device *);
int owner_coldest(struct device *, struct aged *to, size_t *extents);
/* All pages but the zone's become UNKNOWN. */
int owner_forget(struct device *);
/* UNKNOWN pages become zeros.  How many, or a negative errno. */
int64_t owner_make_known(struct device *);
/* See fetch.h. */
int owner_keep(struct device *, uint64_t first, uint64_t pages, const uint8_t *from);
/* What the other host says of pages that are PENDING: those that it has nothing of become what it says. */
int owner_take_states(struct device *, uint64_t first, uint64_t pages, const uint8_t *states);
/* PENDING pages become LOST. */
int owner_give_up(struct device *);
int owner_settle(struct device *);
/* A pass goes on until it has had a processor for its budget, or is at its end. */
int owner_recompress(struct device *, struct recompress *);
/* See mend_disk(). */
int64_t owner_mend(struct device *);
/* See contents.h; a call of the first looks until it has found something, or there is nothing. */
int owner_read_contents(struct device *, uint64_t *page, bool zone, struct contents *);
int owner_write_contents(struct device *, bool zone, struct contents *, uint64_t length);
int owner_write_packed(struct device *, struct contents *);
/* All of the zone becomes zeros, without a swap header. */
int owner_clear_zone(struct device *);
/* Where a trim left blocks behind.  This and the next one leave a clean device as it is. */
int owner_punch(struct device *);
/* Wherever the disk file has blocks and no page is on disk. */
int owner_punch_unused(struct device *);

#endif
