/* SPDX-License-Identifier: BSD-3-Clause */
#include "promotion.h"

#include "places.h"
#include "weights.h"

/* The shortest slot, see weights.c: so much of the rule is known before the page is compressed. */
#define LEAST_BYTES 64u

/* It was read under the mark, and only under the mark alone can it become DISK anew: so if it is on
 * disk and nowhere else, it is what was read.  An ordinary put of a page without a slot (no row of its
 * own in docs/concurrency.md): its disk copy is forgotten. */
static bool publish(struct device *d, uint64_t page, const struct tmem_handle *handle,
		    const struct tmem_fresh *fresh)
{
	static const struct noted on_disk = {.state = DISK};
	uint32_t old = 0;

	d->tmem->lock(d->host, handle);
	/* A sync that has begun to hold pages down since would save a map that does not know it. */
	bool published = place_is(d, page, handle, &on_disk) && !device_over_quota(d) &&
			 !place_publish(d, page, handle, fresh, &old);
	d->tmem->unlock(d->host, handle);
	return published;
}

void promotion_consider(struct device *d, uint64_t page, const uint8_t *from)
{
	uint64_t below = __atomic_load_n(&d->promoted_below, __ATOMIC_RELAXED);
	struct tmem_handle handle = device_handle(d, page);
	struct tmem_fresh fresh;

	if (weight_of(d, page, LEAST_BYTES) >= below || zone_has(&d->zone, page))
		return;
	/* Rule K2: a read is no change, so that a guest that only reads keeps what was saved. */
	if (!device_is_marked(d) || device_over_quota(d))
		return;
	if (d->tmem->build(d->host, &handle, from, device_compress(d), TMEM_SPARE, &fresh))
		return;
	bool is_light = weight_of(d, page, d->tmem->slot_bytes(d->host, fresh.ref)) < below;
	if (is_light && publish(d, page, &handle, &fresh))
		count_up(&d->count.promoted_pages);
	else
		d->tmem->abandon(d->host, &fresh);
}
