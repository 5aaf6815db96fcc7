/* SPDX-License-Identifier: BSD-3-Clause */
#include "owner.h"

#include "clock.h"
#include "mend.h"
#include "punch.h"
#include "requests.h"

/* Pages in one flight. */
#define PUNCH_AT_ONCE 65536u            /* and those that become known */
#define SETTLE_AT_ONCE 4096u

static int begin(struct device *d, struct flight *mine)
{
	return flights_begin(&d->flights, mine, FLIGHTS_OURS);
}

static void end(struct device *d, struct flight *mine)
{
	flights_end(&d->flights, mine);
}

int owner_write_page_zero(struct device *d, const uint8_t *page)
{
	struct progress progress = {0};
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	err = device_mark(d);
	if (!err)
		err = request_write(d, page, PAGE_BYTES, 0, REQUEST_FUA, &progress);
	end(d, &mine);
	return err;
}

int owner_writeback(struct device *d, uint64_t extent, uint64_t most, struct writeback *w)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	*w = (struct writeback){.err = device_mark(d)};
	if (!w->err)
		writeback_extent(d, extent * EXTENT_PAGES, most, w);
	end(d, &mine);
	return 0;
}

int owner_coldest(struct device *d, struct aged *to, size_t *extents)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	*extents = writeback_coldest(d, to);
	end(d, &mine);
	return 0;
}

int owner_forget(struct device *d)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	err = device_mark(d);
	for (uint64_t page = 0, n; !err && page < d->pages; page += n) {
		n = zone_run(&d->zone, page, d->pages - page);
		if (!zone_has(&d->zone, page))
			device_drop(d, page, n, UNKNOWN);
	}
	end(d, &mine);
	return err;
}

static uint64_t piece(const struct device *d, uint64_t first, uint64_t most)
{
	return d->pages - first < most ? d->pages - first : most;
}

int64_t owner_make_known(struct device *d)
{
	struct flight mine;
	uint64_t made = 0;

	for (uint64_t first = 0; first < d->pages; first += PUNCH_AT_ONCE) {
		int err = begin(d, &mine);
		if (err)
			return err;
		err = device_mark(d);
		if (!err)
			made += device_make_known(d, first, piece(d, first, PUNCH_AT_ONCE));
		end(d, &mine);
		if (err)
			return err;
	}
	return (int64_t)made;
}

int owner_settle(struct device *d)
{
	struct flight mine;

	for (uint64_t first = 0; first < d->pages; first += SETTLE_AT_ONCE) {
		int err = begin(d, &mine);
		if (err)
			return err;
		device_settle(d, first, piece(d, first, SETTLE_AT_ONCE));
		end(d, &mine);
	}
	return 0;
}

int owner_recompress(struct device *d, struct recompress *r)
{
	struct flight mine;

	r->recompressed = r->no_room = r->worked = r->took = 0;
	while (r->next < d->pages && r->worked < r->budget) {
		int err = begin(d, &mine);
		if (err)
			return err;
		uint64_t began = monotonic_ns(), worked = thread_cpu_ns();
		recompress_pages(d, r);
		r->worked += thread_cpu_ns() - worked;
		r->took += monotonic_ns() - began;
		end(d, &mine);
	}
	return 0;
}

int64_t owner_mend(struct device *d)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	int64_t lost = mend_disk(d);
	end(d, &mine);
	return lost;
}

int owner_punch(struct device *d)
{
	struct flight mine;
	int err = 0;

	for (uint64_t first = 0; !err && first < d->pages && count_of(&d->to_punch_pages);
	     first += PUNCH_AT_ONCE) {
		err = begin(d, &mine);
		if (err)
			return err;
		err = device_mark(d);
		if (!err)
			err = punch_range(d, first, piece(d, first, PUNCH_AT_ONCE), false);
		end(d, &mine);
	}
	return err;
}

int owner_punch_unused(struct device *d)
{
	struct flight mine;
	int err = 0;

	for (uint64_t at = 0; !err && at < d->pages;) {
		err = begin(d, &mine);
		if (err)
			return err;
		err = device_mark(d);
		if (!err)
			err = punch_unused(d, &at, PUNCH_AT_ONCE);
		end(d, &mine);
	}
	return err;
}
