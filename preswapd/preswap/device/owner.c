/* SPDX-License-Identifier: BSD-3-Clause */
#include "owner.h"

#include "clock.h"
#include "fetch.h"
#include "mend.h"
#include "places.h"
#include "punch.h"
#include "requests.h"

/* Pages in one flight. */
#define PUNCH_AT_ONCE 65536u            /* and those that become known */
#define SETTLE_AT_ONCE 4096u
#define LOOKS_AT_ONCE (1u << 20)        /* pages that are only looked at: some 10 ms */

static int begin(struct device *d, struct flight *mine)
{
	return flights_begin(&d->flights, mine, FLIGHTS_OURS, FLIGHT_CHANGES);
}

static void end(struct device *d, struct flight *mine)
{
	flights_end(&d->flights, mine);
}

/* For what changes pages. */
static int begin_change(struct device *d, struct flight *mine)
{
	int err = begin(d, mine);

	if (err)
		return err;
	err = device_mark(d);
	if (err)
		end(d, mine);
	return err;
}

int owner_write_page_zero(struct device *d, const uint8_t *page)
{
	struct progress progress = {0};
	struct flight mine;
	int err = begin_change(d, &mine);

	if (err)
		return err;
	err = request_write(d, page, PAGE_BYTES, 0, REQUEST_FUA, &progress);
	end(d, &mine);
	return err;
}

int owner_writeback(struct device *d, uint64_t extent, double seconds, uint64_t most,
		    struct writeback *w)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	writeback_extent(d, extent * EXTENT_PAGES, seconds, most, w);
	end(d, &mine);
	return 0;
}

int owner_writeback_idle(struct device *d, uint64_t *page, double seconds, uint64_t most,
			 struct writeback *w)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	*page = writeback_idle(d, *page, seconds, most, w);
	end(d, &mine);
	return 0;
}

int owner_writeback_heavy(struct device *d, uint64_t *page, const struct heavy *heavy,
			  struct writeback *w)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	*page = writeback_heavy(d, *page, heavy, w);
	end(d, &mine);
	return 0;
}

int owner_weigh(struct device *d, uint16_t since, uint64_t pages_of[WEIGHT_STEPS])
{
	struct flight mine;

	for (uint64_t object = 0; object < SWIZZLE_OBJECTS; object++) {
		int err = begin(d, &mine);
		if (err)
			return err;
		if (object == 0)
			weights_forget(d, since);
		weights_take(d, object, pages_of);
		end(d, &mine);
	}
	return 0;
}

struct aging {
	struct device *device;
	uint64_t object, now;
	struct older *older;
	size_t n;
};

static void add_older(void *ctx, uint32_t index, uint32_t ref)
{
	struct aging *a = ctx;
	struct device *d = a->device;
	uint64_t page = swizzle_page(a->object, index);
	double seconds = epochs_seconds(d->epochs, epochs_number(&d->touched[page]), a->now);

	for (size_t i = 0; i < a->n; i++) {
		if (seconds < a->older[i].seconds)
			continue;
		a->older[i].pages++;
		a->older[i].bytes += d->tmem->slot_bytes(d->host, ref);
	}
}

int owner_ages(struct device *d, struct older *older, size_t n)
{
	struct flight mine;

	for (uint64_t object = 0; object < SWIZZLE_OBJECTS; object++) {
		struct aging a = {d, object, monotonic_ns(), older, n};
		struct tmem_handle handle = device_handle(d, object);
		int err = begin(d, &mine);
		if (err)
			return err;
		d->tmem->visit(d->host, &handle, add_older, &a);
		end(d, &mine);
	}
	return 0;
}

static bool is_held(const struct device *d, uint64_t page)
{
	uint8_t state = device_state(d, page);

	return state == TMEM || (state == DISK && !zone_has(&d->zone, page));
}

static uint64_t piece(const struct device *d, uint64_t first, uint64_t most)
{
	return d->pages - first < most ? d->pages - first : most;
}

int owner_idle_pages(struct device *d, uint64_t pages_of[REUSE_STEPS])
{
	uint64_t now = monotonic_ns();
	struct flight mine;

	for (uint64_t page = 0; page < d->pages;) {
		int err = begin(d, &mine);
		if (err)
			return err;
		for (uint64_t n = piece(d, page, LOOKS_AT_ONCE); n > 0; n--, page++)
			if (is_held(d, page))
				pages_of[epochs_reuse_step(epochs_seconds(
					d->epochs, epochs_number(&d->touched[page]), now))]++;
		end(d, &mine);
	}
	return 0;
}

int owner_reads(struct device *d, struct distances *sum)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	sampler_add(d->sampler, d->sampled, sum);
	end(d, &mine);
	return 0;
}

int owner_renumber(struct device *d)
{
	struct flight mine;

	for (uint64_t page = 0; page < d->pages;) {
		int err = begin(d, &mine);
		if (err)
			return err;
		for (uint64_t n = piece(d, page, LOOKS_AT_ONCE); n > 0; n--, page++)
			epochs_renumber(d->epochs, &d->touched[page]);
		end(d, &mine);
	}
	return 0;
}

int owner_forget_left(struct device *d)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	place_forget_left(d);
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
	int err = begin_change(d, &mine);

	if (err)
		return err;
	for (uint64_t page = 0, n; page < d->pages; page += n) {
		n = zone_run(&d->zone, page, d->pages - page);
		if (!zone_has(&d->zone, page))
			device_drop(d, page, n, UNKNOWN);
	}
	end(d, &mine);
	return 0;
}

int64_t owner_make_known(struct device *d)
{
	struct flight mine;
	uint64_t made = 0;

	for (uint64_t first = 0; first < d->pages; first += PUNCH_AT_ONCE) {
		int err = begin_change(d, &mine);
		if (err)
			return err;
		made += device_make_known(d, first, piece(d, first, PUNCH_AT_ONCE));
		end(d, &mine);
	}
	return (int64_t)made;
}

int owner_keep(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from)
{
	struct flight mine;
	int err = begin(d, &mine);

	if (err)
		return err;
	err = fetch_keep(d, first, pages, from);
	end(d, &mine);
	return err;
}

/* In the zone a page is fetched, whatever it is there. */
static bool has_nothing(const struct device *d, uint64_t page, uint8_t there)
{
	return !zone_has(&d->zone, page) && (there == HOLE || there == UNKNOWN || there == LOST);
}

int owner_take_states(struct device *d, uint64_t first, uint64_t pages, const uint8_t *states)
{
	struct flight mine;
	int err = begin_change(d, &mine);

	if (err)
		return err;
	for (uint64_t i = 0; i < pages; i++)
		if (has_nothing(d, first + i, states[i]))
			device_settle_pending(d, first + i, 1, (enum page_state)states[i]);
	end(d, &mine);
	return 0;
}

int owner_give_up(struct device *d)
{
	struct flight mine;

	for (uint64_t first = 0; first < d->pages; first += PUNCH_AT_ONCE) {
		int err = begin_change(d, &mine);
		if (err)
			return err;
		device_settle_pending(d, first, piece(d, first, PUNCH_AT_ONCE), LOST);
		end(d, &mine);
	}
	return 0;
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

int owner_read_contents(struct device *d, uint64_t *page, bool zone, struct contents *c)
{
	struct flight mine;
	int err;

	do {
		err = begin(d, &mine);
		if (err)
			return err;
		err = contents_read(d, page, zone, c);
		end(d, &mine);
	} while (!err && !c->pages && *page < d->pages);
	return err;
}

int owner_write_contents(struct device *d, bool zone, struct contents *c, uint64_t length)
{
	struct flight mine;
	int err = begin_change(d, &mine);

	if (err)
		return err;
	err = contents_write(d, zone, c, length);
	end(d, &mine);
	return err;
}

int owner_write_packed(struct device *d, struct contents *c)
{
	struct flight mine;
	int err = begin_change(d, &mine);

	if (err)
		return err;
	err = contents_write_packed(d, c);
	end(d, &mine);
	return err;
}

int owner_clear_zone(struct device *d)
{
	struct flight mine;
	int err = begin_change(d, &mine);

	if (err)
		return err;
	for (uint32_t i = 0; !err && i < d->zone.n; i++) {
		const struct zone_range *r = &d->zone.ranges[i];
		err = request_zero(d, (r->end - r->first) * PAGE_BYTES, r->first * PAGE_BYTES, 0);
	}
	end(d, &mine);
	return err;
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

/* -ECANCELED: the map was saved.  Whoever asked may have looked before that, and waited since: giving blocks
 * back is not worth that the next reboot loses all pages. */
static int begin_upkeep(struct device *d, struct flight *mine)
{
	int err = begin(d, mine);

	if (!err && !device_is_marked(d)) {
		end(d, mine);
		return -ECANCELED;
	}
	return err;
}

int owner_punch(struct device *d)
{
	struct flight mine;
	int err = 0;

	for (uint64_t first = 0; !err && first < d->pages && count_of(&d->to_punch_pages);
	     first += PUNCH_AT_ONCE) {
		err = begin_upkeep(d, &mine);
		if (err)
			return err == -ECANCELED ? 0 : err;
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
		err = begin_upkeep(d, &mine);
		if (err)
			return err == -ECANCELED ? 0 : err;
		err = punch_unused(d, &at, PUNCH_AT_ONCE);
		end(d, &mine);
	}
	return err;
}
