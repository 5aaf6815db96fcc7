/* SPDX-License-Identifier: BSD-3-Clause */
#include "fetch.h"

#include <stdalign.h>
#include <string.h>

#include "keep.h"

static const struct noted pending = {.state = PENDING};

/* Only under the mark alone does a page become DISK: what is PENDING still has nothing newer there. */
static int keep_rejected(struct device *d, uint64_t page, const uint8_t *from)
{
	/* A pull's thread does without a buffer of its own: there is one for each device that arrives. */
	alignas(PAGE_BYTES) uint8_t copy[PAGE_BYTES];
	struct mark mark;

	memcpy(copy, from, PAGE_BYTES);
	marks_take(&d->marks, &mark, page, 1, true);
	int err = device_state(d, page) == PENDING ?
		  keep_on_disk(d, page, &pending, copy, page == 0) : -ESTALE;
	marks_drop(&d->marks, &mark);
	return err;
}

static int keep(struct device *d, uint64_t page, const uint8_t *from)
{
	int err = 1;

	if (device_state(d, page) != PENDING)
		return 0;
	if (!zone_has(&d->zone, page))
		err = keep_in_tmem(d, page, &pending, from);
	if (err == 1)
		err = keep_rejected(d, page, from);
	if (!err)
		count_up(&d->count.fetched_pages);
	return err == -ESTALE ? 0 : err;
}

int fetch_keep(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from)
{
	int err = device_mark(d);

	for (uint64_t i = 0; !err && i < pages; i++)
		err = keep(d, first + i, from + i * PAGE_BYTES);
	return err;
}

int fetch_pages(struct device *d, uint64_t first, uint64_t pages, uint8_t *to)
{
	/* Before they are asked for. */
	bool is_here = device_guest(d) == GUEST_HERE;
	int err = d->fetch(d->owner, first, (uint32_t)pages, to);

	if (err) {
		count_up(&d->count.fetch_errors);
		return -EIO;
	}
	/* Where they cannot be kept now they are fetched once more. */
	if (is_here)
		(void)fetch_keep(d, first, pages, to);
	return 0;
}

int fetch_page(struct device *d, uint64_t page)
{
	uint8_t content[PAGE_BYTES];

	if (device_state(d, page) != PENDING)
		return 0;
	int err = fetch_pages(d, page, 1, content);
	if (device_state(d, page) != PENDING)
		return 0;
	return err ? err : -EIO;
}
