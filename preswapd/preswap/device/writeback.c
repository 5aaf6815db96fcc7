/* SPDX-License-Identifier: BSD-3-Clause */
#include "writeback.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "places.h"

/* Of several moves one writes at a time: two writers on a file with holes keep guests' reads out
 * of it (p99 8.8 ms instead of 0.8). */
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;

static int write_out(struct device *d, uint64_t first, uint64_t pages, const uint8_t *buffer)
{
	pthread_mutex_lock(&writing);
	int err = disk_write(&d->disk, first, (uint32_t)pages, buffer);
	pthread_mutex_unlock(&writing);
	return err;
}

/* Copies one page of tmem into the buffer and notes it; slot.ref is 0 where there is none, and for
 * a damaged page: it leaves tmem as lost. */
static int take(struct device *d, uint64_t page, uint8_t *to, struct noted *noted,
		struct writeback *w)
{
	struct tmem_copy copy;

	place_note(d, page, 0, noted, &copy);
	if (!noted->slot.ref)
		return 0;
	int err = d->tmem->open(d->host, &copy, to);
	if (err != -EIO)
		return err;                    /* a lack of memory is not damage */
	w->lost += place_change(d, page, noted, LOST);
	noted->slot.ref = 0;
	return 0;
}

void writeback_extent(struct device *d, uint64_t first, uint64_t most, struct writeback *w)
{
	uint64_t pages = d->pages - first < EXTENT_PAGES ? d->pages - first : EXTENT_PAGES;
	struct noted noted[EXTENT_PAGES];
	uint8_t *buffer = disk_buffer();
	struct mark mark;
	uint64_t run = 0;

	*w = (struct writeback){.err = buffer ? 0 : -ENOMEM};
	if (!buffer)
		return;
	marks_take(&d->marks, &mark, first, pages, true);
	for (uint64_t i = 0, n = 0; !w->err && i < pages; i++) {
		noted[i].slot.ref = 0;
		if (n < most)
			w->err = take(d, first + i, buffer + i * PAGE_BYTES, &noted[i], w);
		n += noted[i].slot.ref != 0;
	}
	for (uint64_t i = 0; !w->err && i <= pages; i++) {
		if (i < pages && noted[i].slot.ref) {
			run++;
			continue;
		}
		if (!run)
			continue;
		w->err = write_out(d, first + i - run, run, buffer + (i - run) * PAGE_BYTES);
		if (w->err) {
			device_disk_error(d, w->err);
			break;
		}
		count_add(&d->count.disk_writes, run);
		for (uint64_t j = i - run; j < i; j++)
			w->moved += place_change(d, first + j, &noted[j], DISK);
		run = 0;
	}
	marks_drop(&d->marks, &mark);
	count_add(&d->count.written_back_pages, w->moved);
}

struct ages {
	uint64_t object;
	struct aged *extents;
};

static void add_age(void *ctx, uint32_t index, uint64_t seq)
{
	struct ages *a = ctx;
	struct aged *e = &a->extents[swizzle_page(a->object, index) / EXTENT_PAGES];

	e->pages++;
	e->seq += (double)seq;
}

static int colder(const void *a, const void *b)
{
	const struct aged *x = a, *y = b;

	return (x->seq > y->seq) - (x->seq < y->seq);
}

size_t writeback_coldest(struct device *d, struct aged *to)
{
	uint64_t extents = (d->pages + EXTENT_PAGES - 1) / EXTENT_PAGES;
	size_t n = 0;

	memset(to, 0, extents * sizeof *to);
	for (uint64_t object = 0; object < SWIZZLE_OBJECTS; object++) {
		struct ages a = {object, to};
		struct tmem_handle handle = device_handle(d, object);
		d->tmem->visit(d->host, &handle, add_age, &a);
	}
	for (uint64_t i = 0; i < extents; i++)
		if (to[i].pages)
			to[n++] = (struct aged){to[i].seq / (double)to[i].pages, to[i].pages, i};
	qsort(to, n, sizeof *to, colder);
	return n;
}
