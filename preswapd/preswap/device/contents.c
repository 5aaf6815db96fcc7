/* SPDX-License-Identifier: BSD-3-Clause */
#include "contents.h"

#include <errno.h>
#include <string.h>

#include "places.h"
#include "requests.h"

/* Pages that a call looks at in vain. */
#define LOOKS_AT_ONCE (1u << 20)

/* --- Reading ---------------------------------------------------------------------------------- */

static bool is_asked_for(const struct device *d, uint64_t page, bool zone)
{
	return zone_has(&d->zone, page) == zone;
}

/* No client and no operator makes a page known meanwhile. */
static bool has_any(const struct device *d, uint64_t first, uint32_t pages, bool zone)
{
	for (uint64_t page = first; page < first + pages; page++)
		if (device_state(d, page) != UNKNOWN && is_asked_for(d, page, zone))
			return true;
	return false;
}

/* Of a page that has no slot. */
static enum content kind_of(uint8_t state)
{
	return state == HOLE ? CONTENT_ZEROS : state == DISK ? CONTENT_BYTES : CONTENT_UNKNOWN;
}

/* What it is, and where it is in memory also its bytes.  A damaged page is lost. */
static int look(struct device *d, uint64_t page, uint8_t *to, uint8_t *kind, bool *is_on_disk, bool *is_lost)
{
	struct noted noted;
	struct tmem_copy copy;
	int err = 0;

	place_note(d, page, 0, &noted, &copy);
	*is_on_disk = !noted.slot.ref && noted.state == DISK;
	if (noted.slot.ref) {
		err = d->tmem->open(d->host, &copy, to);
		*kind = err ? CONTENT_UNKNOWN : CONTENT_BYTES;
		*is_lost = err == -EIO;
		return *is_lost ? 0 : err;
	}
	*kind = (uint8_t)kind_of(noted.state);
	*is_lost = *kind == CONTENT_UNKNOWN && noted.state != UNKNOWN;
	return 0;
}

static int read_run(struct device *d, uint64_t first, uint32_t pages, uint8_t *to)
{
	int err = pages ? disk_read(&d->disk, first, pages, to) : 0;

	if (err)
		return device_disk_error(d, err);
	count_add(&d->count.disk_reads, pages);
	return 0;
}

/* Under the mark: what is on disk stays there, and what is not does not get there. */
static int read_extent(struct device *d, bool zone, struct contents *c)
{
	uint8_t *kinds = contents_kinds(c);
	uint32_t run = 0;
	int err = 0;

	for (uint32_t i = 0; !err && i < c->pages; i++) {
		uint64_t page = c->first + i;
		uint8_t *to = contents_bytes(c) + (size_t)c->bytes * PAGE_BYTES;
		bool is_on_disk = false, is_lost = false;

		kinds[i] = CONTENT_UNKNOWN;
		if (is_asked_for(d, page, zone))
			err = look(d, page, to, &kinds[i], &is_on_disk, &is_lost);
		if (!err && !is_on_disk) {
			/* Those before it, whose bytes stand before its own. */
			err = read_run(d, page - run, run, to - (size_t)run * PAGE_BYTES);
			run = 0;
		}
		run += is_on_disk;
		c->bytes += kinds[i] == CONTENT_BYTES;
		c->zeros += kinds[i] == CONTENT_ZEROS;
		c->lost += is_lost;
	}
	if (err)
		return err;
	return read_run(d, c->first + c->pages - run, run,
			contents_bytes(c) + (size_t)(c->bytes - run) * PAGE_BYTES);
}

int contents_read(struct device *d, uint64_t *page, bool zone, struct contents *c)
{
	struct mark mark;

	c->bytes = c->zeros = c->lost = c->pages = 0;
	for (uint64_t n, looks = 0; *page < d->pages && looks < LOOKS_AT_ONCE; looks += n) {
		n = d->pages - *page < EXTENT_PAGES ? d->pages - *page : EXTENT_PAGES;
		c->first = *page;
		*page += n;
		if (!has_any(d, c->first, (uint32_t)n, zone))
			continue;
		c->pages = (uint32_t)n;
		marks_take(&d->marks, &mark, c->first, n, false);
		int err = read_extent(d, zone, c);
		marks_drop(&d->marks, &mark);
		return err;
	}
	return 0;
}

/* --- Writing ---------------------------------------------------------------------------------- */

/* Counts them, too: it comes from a file. */
static bool fits(const struct device *d, bool zone, struct contents *c, uint64_t length)
{
	const uint8_t *kinds = contents_kinds(c);

	c->bytes = c->zeros = 0;
	for (uint32_t i = 0; i < c->pages; i++) {
		if (kinds[i] == CONTENT_UNKNOWN)
			continue;
		if (!is_asked_for(d, c->first + i, zone))
			return false;
		if (kinds[i] == CONTENT_BYTES)
			c->bytes++;
		else if (kinds[i] == CONTENT_ZEROS && !zone)
			c->zeros++;
		else
			return false;
	}
	return length == c->pages + (uint64_t)c->bytes * PAGE_BYTES;
}

static uint32_t run_of(const uint8_t *kinds, uint32_t i, uint32_t pages)
{
	uint32_t end = i;

	while (end < pages && kinds[end] == kinds[i])
		end++;
	return end - i;
}

static bool is_zeros(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, PAGE_BYTES - 1);
}

static int write_pages(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from)
{
	struct progress progress = {0};

	return request_write(d, from, pages * PAGE_BYTES, first * PAGE_BYTES, 0, &progress);
}

/* Most of it are zeros, for which the disk file needs no blocks. */
static int write_zone(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from)
{
	int err = 0;

	for (uint64_t n; !err && pages; pages -= n, first += n, from += n * PAGE_BYTES) {
		bool zeros = is_zeros(from);
		for (n = 1; n < pages && is_zeros(from + n * PAGE_BYTES) == zeros;)
			n++;
		err = zeros ? request_zero(d, n * PAGE_BYTES, first * PAGE_BYTES, 0) :
			      write_pages(d, first, n, from);
	}
	return err;
}

int contents_write(struct device *d, bool zone, struct contents *c, uint64_t length)
{
	const uint8_t *from = contents_bytes(c), *kinds = contents_kinds(c);
	int err = fits(d, zone, c, length) ? 0 : -EINVAL;

	for (uint32_t i = 0, n; !err && i < c->pages; i += n) {
		uint64_t first = c->first + i;

		n = run_of(kinds, i, c->pages);
		if (kinds[i] == CONTENT_ZEROS)
			device_make_known(d, first, n);
		if (kinds[i] != CONTENT_BYTES)
			continue;
		err = zone ? write_zone(d, first, n, from) : write_pages(d, first, n, from);
		from += (size_t)n * PAGE_BYTES;
	}
	return err;
}
