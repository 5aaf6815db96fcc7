/* SPDX-License-Identifier: BSD-3-Clause */
/* The place of each page, and how it goes from one to another under the page's lock.
 *
 * Neighbouring pages lie under different locks, and share the bytes of the bitmaps: bits change by
 * atomic or and and.
 */
#ifndef PRESWAPD_PLACES_H
#define PRESWAPD_PLACES_H

#include <errno.h>

#include "device.h"

/* What a page was, seen under its lock: who takes the lock again compares all three, as a slot alone
 * may have been freed and filled again. */
struct noted {
	struct tmem_found slot;
	uint8_t state;
};

/* -EAGAIN: somebody holds it, under REQUEST_NOWAIT. */
static inline int place_lock(struct device *d, const struct tmem_handle *handle, unsigned flags)
{
	if (d->tmem->trylock(d->host, handle))
		return 0;
	if (flags & REQUEST_NOWAIT)
		return -EAGAIN;
	d->tmem->lock(d->host, handle);
	return 0;
}

/* What the page is, and the copy of it where it is in tmem (noted->slot.ref).  -EAGAIN as above. */
static inline int place_note(struct device *d, uint64_t page, unsigned flags, struct noted *noted,
			     struct tmem_copy *copy)
{
	struct tmem_handle handle = device_handle(d, page);
	int err = place_lock(d, &handle, flags);

	if (err)
		return err;
	*noted = (struct noted){d->tmem->find(d->host, &handle), device_state(d, page)};
	if (noted->slot.ref)
		d->tmem->copy(d->host, &noted->slot, copy);
	d->tmem->unlock(d->host, &handle);
	return 0;
}

/* Under the lock: is it still what was noted? */
bool place_is(const struct device *, uint64_t page, const struct tmem_handle *,
	      const struct noted *);

/* A built page becomes the page.  Under the lock; `*old` is to be released after it. */
int place_publish(struct device *, uint64_t page, const struct tmem_handle *,
		  const struct tmem_fresh *, uint32_t *old);
/* P, then the death of the slot that is the page's now; takes the lock.  True if there was one. */
bool place_become(struct device *, uint64_t page, enum page_state);
/* The same only if the page is still what was noted, otherwise false.  For DISK the caller has
 * written it there. */
bool place_change(struct device *, uint64_t page, const struct noted *, enum page_state);

/* The page's disk blocks are to be punched; or not any more. */
void place_to_punch(struct device *, uint64_t page);
void place_punched(struct device *, uint64_t page);

/* It was written back in the last minutes, and is read from disk now: true once. */
bool place_has_left(struct device *, uint64_t page);
/* It was written back now. */
void place_leave(struct device *, uint64_t page);
/* What was written back a while ago is no refault any more: to be called each few minutes. */
void place_forget_left(struct device *);

/* --- at start, before there are requests --- */

/* Counts the page as what P says. */
void place_found(struct device *, uint64_t page);
/* It has a live slot, so it is in tmem, whatever P says (R2). */
void place_found_in_tmem(struct device *, uint64_t page);
/* It has none and should, or P is damaged. */
void place_found_lost(struct device *, uint64_t page);

#endif
