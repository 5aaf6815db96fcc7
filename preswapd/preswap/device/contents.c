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

static void add_packed(struct contents *c, uint32_t i, const struct tmem_packed *p)
{
	uint8_t *to = c->packed_space + c->packed_length;

	c->packed_space[i] = p->codec;
	memcpy(to, &p->length, sizeof p->length);
	memcpy(to + sizeof p->length, p->bytes, p->length);
	c->packed_length += (uint32_t)sizeof p->length + p->length;
	c->packed++;
}

/* A page in memory: as it is where that is compressed, else its bytes. */
static int take(struct device *d, const struct tmem_copy *copy, struct contents *c, uint32_t i, uint8_t *to)
{
	struct tmem_packed p;

	if (!c->packed_space)
		return d->tmem->open(d->host, copy, to);
	int err = d->tmem->open_packed(d->host, copy, &p);
	if (err)
		return err;
	if (p.codec == TMEM_CODEC_RAW)
		return d->tmem->unpack(&p, to);
	add_packed(c, i, &p);
	return 0;
}

/* What it is, and where it is in memory also its bytes.  A damaged page is lost. */
static int look(struct device *d, struct contents *c, uint32_t i, uint8_t *to, bool *is_on_disk, bool *is_lost)
{
	uint8_t *kind = &contents_kinds(c)[i];
	uint32_t packed = c->packed;
	struct noted noted;
	struct tmem_copy copy;
	int err = 0;

	place_note(d, c->first + i, 0, &noted, &copy);
	*is_on_disk = !noted.slot.ref && noted.state == DISK;
	if (noted.slot.ref) {
		err = take(d, &copy, c, i, to);
		*kind = err || c->packed > packed ? CONTENT_UNKNOWN : CONTENT_BYTES;
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

	if (c->packed_space) {
		memset(c->packed_space, 0, c->pages);
		c->packed_length = c->pages;
	}
	for (uint32_t i = 0; !err && i < c->pages; i++) {
		uint64_t page = c->first + i;
		uint8_t *to = contents_bytes(c) + (size_t)c->bytes * PAGE_BYTES;
		bool is_on_disk = false, is_lost = false;

		kinds[i] = CONTENT_UNKNOWN;
		if (is_asked_for(d, page, zone))
			err = look(d, c, i, to, &is_on_disk, &is_lost);
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

	c->bytes = c->zeros = c->lost = c->pages = c->packed = c->packed_length = 0;
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

/* --- Writing what is compressed ----------------------------------------------------------------- */

/* The next one; false where there is none, or it is cut. */
static bool next_packed(const struct contents *c, uint32_t i, uint32_t *at, struct tmem_packed *p)
{
	p->codec = c->packed_space[i];
	if (c->packed_length - *at < sizeof p->length)
		return false;
	memcpy(&p->length, c->packed_space + *at, sizeof p->length);
	*at += (uint32_t)sizeof p->length;
	p->bytes = c->packed_space + *at;
	if (p->length > c->packed_length - *at)
		return false;
	*at += p->length;
	return true;
}

/* All of them, to where their place in the extent is.  It comes from a file. */
static int unpack_all(const struct device *d, struct contents *c)
{
	uint32_t at = c->pages;
	struct tmem_packed p;

	c->packed = 0;
	if (c->packed_length < c->pages)
		return -EINVAL;
	for (uint32_t i = 0; i < c->pages; i++) {
		if (!c->packed_space[i])
			continue;
		if (is_asked_for(d, c->first + i, true) || !next_packed(c, i, &at, &p))
			return -EINVAL;
		int err = d->tmem->unpack(&p, contents_bytes(c) + (size_t)i * PAGE_BYTES);
		if (err)
			return err == -EIO ? -EINVAL : err;
		c->packed++;
	}
	return at == c->packed_length ? 0 : -EINVAL;
}

/* What a guest's write would have made of it, or denser. */
static bool is_as_wanted(const struct device *d, const struct tmem_packed *p)
{
	enum tmem_compress compress = device_compress(d);

	return compress != TMEM_NONE && !(compress == TMEM_ZSTD && p->codec == TMEM_CODEC_LZ4);
}

/* Whether tmem has taken it as it is. */
static bool put_packed(struct device *d, uint64_t page, const struct tmem_packed *p)
{
	struct tmem_handle handle = device_handle(d, page);
	struct tmem_fresh fresh;
	uint32_t old = 0;

	if (!is_as_wanted(d, p) || device_over_quota(d) ||
	    d->tmem->build_packed(d->host, &handle, p, 0, &fresh))
		return false;
	d->tmem->lock(d->host, &handle);
	int err = place_publish(d, page, &handle, &fresh, &old);
	d->tmem->unlock(d->host, &handle);
	if (err) {
		d->tmem->abandon(d->host, &fresh);
		return false;
	}
	device_touch(d, page, false);
	d->tmem->release(d->host, old);
	count_up(&d->count.succ_stores);
	return true;
}

/* From the first one on that tmem does not take, a run is written as a guest would: to disk at once, where
 * that is the reason. */
int contents_write_packed(struct device *d, struct contents *c)
{
	const uint8_t *codecs = c->packed_space;
	uint32_t at = c->pages;
	int err = unpack_all(d, c);

	for (uint32_t i = 0, end; !err && i < c->pages; i = end) {
		uint32_t taken = i;
		bool takes = true;

		for (end = i; end < c->pages && codecs[end]; end++) {
			struct tmem_packed p;
			next_packed(c, end, &at, &p);
			takes = takes && put_packed(d, c->first + end, &p);
			taken += takes;
		}
		if (end > taken)
			err = write_pages(d, c->first + taken, end - taken,
					  contents_bytes(c) + (size_t)taken * PAGE_BYTES);
		while (end < c->pages && !codecs[end])
			end++;
	}
	return err;
}
