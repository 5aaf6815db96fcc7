/* SPDX-License-Identifier: BSD-3-Clause */
#include "writeback.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "copies.h"
#include "places.h"
#include "runs.h"
#include "weights.h"

/* Pages that a call looks at in vain: whole extents, and some 10 ms. */
#define LOOKS_AT_ONCE (4096u * EXTENT_PAGES)

/* Copies one page of tmem into the buffer and notes it; slot.ref is 0 where there is none, and for
 * a damaged page: it leaves tmem as lost. */
static int take(struct device *d, uint64_t page, uint8_t *to, struct noted *noted,
		struct copies *copies, struct writeback *w)
{
	struct tmem_copy copy;

	place_note(d, page, 0, noted, &copy);
	if (!noted->slot.ref)
		return 0;
	int err = d->tmem->open(d->host, &copy, to);
	if (!err && copies)
		copies_seal(copies, page, &copy);
	if (err != -EIO)
		return err;                    /* a lack of memory is not damage */
	w->lost += place_change(d, page, noted, LOST);
	noted->slot.ref = 0;
	return 0;
}

/* The first of an extent's pages that are to leave tmem, and the page behind the last one. */
static uint64_t first_of(const bool *chosen)
{
	uint64_t i = 0;

	while (!chosen[i])
		i++;
	return i;
}

static uint64_t end_of(const bool *chosen)
{
	uint64_t i = EXTENT_PAGES;

	while (!chosen[i - 1])
		i--;
	return i;
}

/* On disk, and not in tmem any more, unless it changed meanwhile. */
static void leave(struct device *d, uint64_t page, const struct noted *noted, struct copies *copies,
		  struct writeback *w)
{
	if (!place_change(d, page, noted, DISK))
		return;
	place_leave(d, page);
	if (copies)
		copies_note(copies, page);
	w->moved++;
}

/* The pages that were taken, side by side as far as they lie so. */
static size_t runs_of(const struct noted *noted, uint64_t first, uint64_t pages,
		      const uint8_t *buffer, struct run *to)
{
	size_t number = 0;

	for (uint64_t i = 0; i < pages; i++) {
		if (!noted[i].slot.ref)
			continue;
		if (i && noted[i - 1].slot.ref)
			to[number - 1].pages++;
		else
			to[number++] = (struct run){first + i, 1, buffer + i * PAGE_BYTES, 0};
	}
	return number;
}

/* Moves at most `most` of the chosen pages of an extent, of which there is one.  Only here a clean
 * device changes (rule K2): a look that finds nothing to move leaves it clean. */
static void move(struct device *d, uint64_t extent, const bool chosen[EXTENT_PAGES], uint64_t most,
		 struct writeback *w)
{
	uint64_t from = first_of(chosen), pages = end_of(chosen) - from, first = extent + from;
	struct noted noted[EXTENT_PAGES];
	uint8_t *buffer = buffer_of_thread();
	struct run runs[EXTENT_PAGES / 2];
	struct mark mark;

	w->err = buffer ? device_mark(d) : -ENOMEM;
	if (w->err)
		return;
	struct copies *copies = copies_begin(d, first, pages);
	marks_take(&d->marks, &mark, first, pages, true);
	for (uint64_t i = 0, n = 0; !w->err && i < pages; i++) {
		noted[i].slot.ref = 0;
		if (n < most && chosen[from + i])
			w->err = take(d, first + i, buffer + i * PAGE_BYTES, &noted[i], copies, w);
		n += noted[i].slot.ref != 0;
	}
	size_t number = w->err ? 0 : runs_of(noted, first, pages, buffer, runs);
	runs_write(&d->disk, runs, number);
	for (size_t i = 0; i < number; i++) {
		const struct run *r = &runs[i];
		if (r->err && !w->err)
			device_disk_error(d, w->err = r->err);
		if (r->err)
			continue;
		count_add(&d->count.disk_writes, r->pages);
		for (uint64_t page = r->first; page < r->first + r->pages; page++)
			leave(d, page, &noted[page - first], copies, w);
	}
	marks_drop(&d->marks, &mark);
	if (copies)
		copies_end(copies);
	else
		copies_pass(d, w->moved);
	count_add(&d->count.written_back_pages, w->moved);
}

static uint64_t pages_of(const struct device *d, uint64_t extent)
{
	return d->pages - extent < EXTENT_PAGES ? d->pages - extent : EXTENT_PAGES;
}

/* Where one call of the others ends that has found nothing. */
static uint64_t end_of_look(const struct device *d, uint64_t page)
{
	return page + LOOKS_AT_ONCE < d->pages ? page + LOOKS_AT_ONCE : d->pages;
}

/* --- The heaviest ------------------------------------------------------------------------------ */

static bool has_heavy(const struct device *d, uint64_t extent, uint8_t least)
{
	for (uint64_t i = 0; i < pages_of(d, extent); i++)
		if (d->weights[extent + i] >= least)
			return true;
	return false;
}

/* The heavy ones; and of those beside them what is nearly as heavy, as a write of many pages takes the
 * disk hardly longer than one of a few. */
static bool choose_heavy(struct device *d, uint64_t extent, const struct heavy *h,
			 bool chosen[EXTENT_PAGES])
{
	uint64_t pages = pages_of(d, extent);
	uint8_t weight[EXTENT_PAGES];
	bool any = false;

	memset(chosen, 0, EXTENT_PAGES * sizeof *chosen);
	for (uint64_t i = 0; i < pages; i++) {
		weight[i] = weight_noted(d, extent + i);
		chosen[i] = weight[i] >= h->least || (i && chosen[i - 1] && weight[i] >= h->beside);
		any |= weight[i] >= h->least;
	}
	for (uint64_t i = pages - 1; i-- > 0;)
		chosen[i] = chosen[i] || (chosen[i + 1] && weight[i] >= h->beside);
	return any;
}

/* Only the first `most`: the page of the extent from which on none is chosen any more. */
static uint64_t keep_first(bool chosen[EXTENT_PAGES], uint64_t pages, uint64_t most)
{
	uint64_t end = 0;

	for (uint64_t n = 0; end < pages && (!chosen[end] || n < most); end++)
		n += chosen[end];
	memset(chosen + end, 0, (EXTENT_PAGES - end) * sizeof *chosen);
	return end;
}

uint64_t writeback_heavy(struct device *d, uint64_t page, const struct heavy *h, struct writeback *w)
{
	bool chosen[EXTENT_PAGES];

	*w = (struct writeback){0};
	for (uint64_t end = end_of_look(d, page); page < end; page += EXTENT_PAGES) {
		if (!has_heavy(d, page, h->least))
			continue;
		bool any = choose_heavy(d, page, h, chosen);
		uint64_t tried = keep_first(chosen, pages_of(d, page), any ? h->most : 0);
		memset(d->weights + page, 0, any ? tried : pages_of(d, page));
		if (!any)
			continue;
		move(d, page, chosen, EXTENT_PAGES, w);
		count_add(&d->count.written_back_room, w->moved);
		return tried < pages_of(d, page) ? page : page + EXTENT_PAGES;
	}
	return page;
}

/* --- What was not touched for long --------------------------------------------------------------- */

/* After 0 seconds each page in tmem is. */
static bool is_idle(const struct device *d, uint64_t page, double seconds, uint64_t now)
{
	return device_state(d, page) == TMEM &&
	       epochs_seconds(d->epochs, epochs_number(&d->touched[page]), now) >= seconds;
}

static bool choose_idle(const struct device *d, uint64_t extent, double seconds, uint64_t now,
			bool chosen[EXTENT_PAGES])
{
	bool any = false;

	memset(chosen, 0, EXTENT_PAGES * sizeof *chosen);
	for (uint64_t i = 0; i < pages_of(d, extent); i++)
		any |= chosen[i] = is_idle(d, extent + i, seconds, now);
	return any;
}

void writeback_extent(struct device *d, uint64_t extent, double seconds, uint64_t most,
		      struct writeback *w)
{
	bool chosen[EXTENT_PAGES];

	*w = (struct writeback){0};
	if (choose_idle(d, extent, seconds, monotonic_ns(), chosen) && most)
		move(d, extent, chosen, most, w);
}

uint64_t writeback_idle(struct device *d, uint64_t page, double seconds, uint64_t most,
			struct writeback *w)
{
	uint64_t now = monotonic_ns();
	bool chosen[EXTENT_PAGES];

	*w = (struct writeback){0};
	for (uint64_t end = end_of_look(d, page); page < end; page += EXTENT_PAGES) {
		if (!choose_idle(d, page, seconds, now, chosen))
			continue;
		move(d, page, chosen, most, w);
		count_add(&d->count.written_back_idle, w->moved);
		/* The rest of it next time: a low rate would write a page of each extent. */
		return w->moved == most ? page : page + EXTENT_PAGES;
	}
	return page;
}

/* --- The coldest extents -------------------------------------------------------------------------- */

struct seqs {
	struct device *device;
	uint64_t object;
	struct aged *extents;
};

static void add_seq(void *ctx, uint32_t index, uint32_t ref)
{
	struct seqs *a = ctx;
	struct device *d = a->device;
	struct aged *e = &a->extents[swizzle_page(a->object, index) / EXTENT_PAGES];

	uint16_t number = epochs_number(&d->touched[swizzle_page(a->object, index)]);

	e->pages++;
	e->touches += (double)epochs_touches(d->epochs, number);
	e->seq += (double)d->tmem->slot_seq(d->host, ref);
}

/* In one epoch, what was put earlier. */
static int colder(const void *a, const void *b)
{
	const struct aged *x = a, *y = b;

	if (x->touches != y->touches)
		return x->touches > y->touches ? 1 : -1;
	return (x->seq > y->seq) - (x->seq < y->seq);
}

size_t writeback_coldest(struct device *d, struct aged *to)
{
	uint64_t extents = (d->pages + EXTENT_PAGES - 1) / EXTENT_PAGES;
	size_t n = 0;

	memset(to, 0, extents * sizeof *to);
	for (uint64_t object = 0; object < SWIZZLE_OBJECTS; object++) {
		struct seqs a = {d, object, to};
		struct tmem_handle handle = device_handle(d, object);
		d->tmem->visit(d->host, &handle, add_seq, &a);
	}
	for (uint64_t i = 0; i < extents; i++) {
		double pages = (double)to[i].pages;
		if (to[i].pages)
			to[n++] = (struct aged){to[i].touches / pages, to[i].seq / pages,
						to[i].pages, i};
	}
	qsort(to, n, sizeof *to, colder);
	return n;
}
