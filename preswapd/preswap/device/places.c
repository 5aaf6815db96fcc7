/* SPDX-License-Identifier: BSD-3-Clause */
#include "places.h"

#include "copies.h"

/* Both return whether the bit was set before.  In order with P beside them: who clears a page's bit for the punch sees the
 * P that set it. */
static bool set_bit(uint8_t *bits, uint64_t page)
{
	uint8_t bit = (uint8_t)(1u << page % 8);

	return __atomic_fetch_or(&bits[page / 8], bit, __ATOMIC_ACQ_REL) & bit;
}

static bool clear_bit(uint8_t *bits, uint64_t page)
{
	uint8_t bit = (uint8_t)(1u << page % 8);

	return __atomic_fetch_and(&bits[page / 8], (uint8_t)~bit, __ATOMIC_ACQ_REL) & bit;
}

/* --- Looking ---------------------------------------------------------------------------------- */

bool place_is(const struct device *d, uint64_t page, const struct tmem_handle *handle,
	      const struct noted *noted)
{
	struct tmem_found slot = d->tmem->find(d->host, handle);

	return slot.ref == noted->slot.ref && slot.seq == noted->slot.seq &&
	       device_state(d, page) == noted->state;
}

/* --- The disk blocks that a page leaves behind ------------------------------------------------- */

/* Counted before the bit is set, so that a clear in between never takes the count below zero. */
void place_to_punch(struct device *d, uint64_t page)
{
	count_up(&d->to_punch_pages);
	if (set_bit(d->to_punch, page))
		count_sub(&d->to_punch_pages, 1);
}

void place_punched(struct device *d, uint64_t page)
{
	clear_bit(d->shadowed, page);
	if (clear_bit(d->to_punch, page))
		count_sub(&d->to_punch_pages, 1);
}

static bool is_empty(enum page_state state)
{
	return state == HOLE || state == UNKNOWN || state == PENDING;
}

/* A page that leaves the disk keeps its blocks there: only a trim gives them up, even where the page
 * was in tmem in between. */
static void note_blocks(struct device *d, uint64_t page, uint8_t before, enum page_state state)
{
	if (before == DISK && state == TMEM)
		set_bit(d->shadowed, page);
	else if (is_empty(state) && !zone_has(&d->zone, page) &&
		 (clear_bit(d->shadowed, page) || before == DISK))
		place_to_punch(d, page);
	else if (state == DISK)
		clear_bit(d->shadowed, page);
}

/* The page was written to disk, but became something else in between.  Under the lock. */
static void note_vain_write(struct device *d, uint64_t page)
{
	uint8_t state = device_state(d, page);

	if (state == TMEM)
		set_bit(d->shadowed, page);
	else if (state != DISK)
		place_to_punch(d, page);
}

/* --- What was written back ---------------------------------------------------------------------- */

void place_leave(struct device *d, uint64_t page)
{
	set_bit(d->left[__atomic_load_n(&d->left_now, __ATOMIC_RELAXED)], page);
}

bool place_has_left(struct device *d, uint64_t page)
{
	uint8_t bit = (uint8_t)(1u << page % 8);
	bool found = false;

	for (unsigned i = 0; i < 2; i++)
		if (__atomic_load_n(&d->left[i][page / 8], __ATOMIC_RELAXED) & bit)
			found |= clear_bit(d->left[i], page);
	return found;
}

void place_forget_left(struct device *d)
{
	uint32_t older = 1 - __atomic_load_n(&d->left_now, __ATOMIC_RELAXED);

	for (uint64_t i = 0; i < (d->pages + 7) / 8; i++)
		if (__atomic_load_n(&d->left[older][i], __ATOMIC_RELAXED))
			__atomic_store_n(&d->left[older][i], 0, __ATOMIC_RELAXED);
	__atomic_store_n(&d->left_now, older, __ATOMIC_RELAXED);
}

/* --- From one place to another ----------------------------------------------------------------- */

/* The zone behind the swap header is on disk for good, and no page of a guest. */
static uint64_t *gauge_of(struct device *d, uint64_t page, enum page_state state)
{
	if (state == DISK && page && zone_has(&d->zone, page))
		return NULL;
	switch (state) {
	case TMEM:
		return &d->count.preswap_pages;
	case DISK:
		return &d->count.disk_pages;
	case LOST:
		return &d->count.lost_pages;
	case UNKNOWN:
		return &d->count.unknown_pages;
	case PENDING:
		return &d->count.pending_pages;
	default:
		return NULL;
	}
}

/* Under the lock P, the gauges and the bit of preswap_map change together. */
static void note_place(struct device *d, uint64_t page, uint8_t before, enum page_state state)
{
	uint64_t *left = gauge_of(d, page, before), *entered = gauge_of(d, page, state);

	if (before == state)
		return;
	if (entered)
		count_up(entered);
	if (left)
		count_sub(left, 1);
	if (state == TMEM)
		set_bit(d->in_tmem, page);
	else if (before == TMEM)
		clear_bit(d->in_tmem, page);
}

static void store_state(struct device *d, uint64_t page, enum page_state state)
{
	uint8_t before = device_state(d, page);

	/* First: whoever sees DISK takes its word for that of what is there. */
	copies_forget(d, page);
	store_release_byte(&d->map[page], (uint8_t)state);
	note_place(d, page, before, state);
	note_blocks(d, page, before, state);
	/* Also where it was written to disk again: then it is there because its put was rejected. */
	if (before == DISK)
		place_has_left(d, page);
}

int place_publish(struct device *d, uint64_t page, const struct tmem_handle *handle,
		  const struct tmem_fresh *fresh, uint32_t *old)
{
	int err = d->tmem->publish(d->host, handle, fresh, old);

	if (!err && !*old)
		store_state(d, page, TMEM);
	return err;
}

/* Under the lock.  Returns the dead slot, to be released after it. */
static uint32_t become(struct device *d, uint64_t page, const struct tmem_handle *handle,
		       enum page_state state)
{
	store_state(d, page, state);
	return d->tmem->drop(d->host, handle);
}

bool place_become(struct device *d, uint64_t page, enum page_state state)
{
	struct tmem_handle handle = device_handle(d, page);

	d->tmem->lock(d->host, &handle);
	uint32_t dead = become(d, page, &handle, state);
	d->tmem->unlock(d->host, &handle);
	d->tmem->release(d->host, dead);
	return dead != 0;
}

bool place_change(struct device *d, uint64_t page, const struct noted *noted,
		  enum page_state state)
{
	struct tmem_handle handle = device_handle(d, page);
	uint32_t dead = 0;

	d->tmem->lock(d->host, &handle);
	bool unchanged = place_is(d, page, &handle, noted);
	if (unchanged)
		dead = become(d, page, &handle, state);
	else if (state == DISK)
		note_vain_write(d, page);
	d->tmem->unlock(d->host, &handle);
	d->tmem->release(d->host, dead);
	return unchanged;
}

/* --- At start ---------------------------------------------------------------------------------- */

void place_found(struct device *d, uint64_t page)
{
	uint64_t *gauge = gauge_of(d, page, device_state(d, page));

	if (gauge)
		count_up(gauge);
}

void place_found_in_tmem(struct device *d, uint64_t page)
{
	if (device_state(d, page) != TMEM)
		store_state(d, page, TMEM);
	set_bit(d->in_tmem, page);
}

void place_found_lost(struct device *d, uint64_t page)
{
	store_state(d, page, LOST);
}
