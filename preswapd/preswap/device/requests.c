/* SPDX-License-Identifier: BSD-3-Clause */
#include "requests.h"

#include <errno.h>
#include <string.h>

#include "copies.h"
#include "fetch.h"
#include "keep.h"
#include "places.h"
#include "promotion.h"
#include "punch.h"

enum found { IN_MEMORY, ON_DISK, ON_SOURCE };

static uint64_t min_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Of a page that is neither in memory, nor on disk, nor a hole. */
static int missing_page_error(struct device *d, uint8_t state)
{
	count_up(state == UNKNOWN ? &d->count.unknown_reads : &d->count.lost_reads);
	return -EIO;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* A page without its disk: IN_MEMORY (`to` is filled), ON_DISK, ON_SOURCE (it is PENDING), or an
 * error. */
static int read_memory(struct device *d, uint64_t page, uint8_t *to, unsigned flags)
{
	struct noted noted;
	struct tmem_copy copy;
	int err = place_note(d, page, flags, &noted, &copy);

	if (err)
		return err;
	if (noted.slot.ref) {
		d->tmem->count_get(d->host, true);
		count_up(&d->count.loads);
		device_touch(d, page, true);
		return d->tmem->open(d->host, &copy, to);
	}
	if (noted.state == DISK)
		return ON_DISK;
	if (noted.state == PENDING)
		return ON_SOURCE;
	if (noted.state != HOLE)
		return missing_page_error(d, noted.state);
	memset(to, 0, PAGE_BYTES);
	return IN_MEMORY;
}

/* What is on disk was read, there or where a copy of it is.  Under the mark. */
static void note_read(struct device *d, uint64_t page, const uint8_t *from)
{
	count_add(&d->count.refaults, place_has_left(d, page));
	promotion_consider(d, page, from);
	device_touch(d, page, true);
}

/* Under the mark. */
static int read_disk(struct device *d, uint64_t first, uint64_t pages, uint8_t *to, uint8_t *buffer)
{
	int err = disk_read(&d->disk, first, (uint32_t)pages, buffer);

	if (err)
		return device_disk_error(d, err);
	memcpy(to, buffer, pages * PAGE_BYTES);
	count_add(&d->count.disk_reads, pages);
	for (uint64_t i = 0; i < pages; i++)
		note_read(d, first + i, buffer + i * PAGE_BYTES);
	return 0;
}

/* Those that are on disk, from the copies of them that there are.  Under the mark. */
static void read_copies(struct device *d, uint64_t first, uint64_t pages, uint8_t *to, bool *on_disk,
			bool *is_late)
{
	bool wanted[DISK_RUN_PAGES];

	memcpy(wanted, on_disk, pages * sizeof *wanted);
	*is_late = !copies_read(d, first, pages, to, on_disk);
	for (uint64_t i = 0; i < pages; i++) {
		if (!wanted[i] || on_disk[i])
			continue;
		count_up(&d->count.remote_reads);
		note_read(d, first + i, to + i * PAGE_BYTES);
	}
}

/* At most DISK_RUN_PAGES pages that were on disk a moment ago: only now, under the mark, their
 * places are looked at.  A request waits for late copies once, in however many runs its pages lie. */
static int read_run(struct device *d, uint64_t first, uint64_t pages, uint8_t *to, bool *is_late)
{
	uint8_t *buffer = buffer_of_thread();
	bool on_disk[DISK_RUN_PAGES];
	struct mark mark;
	int err = buffer ? 0 : -ENOMEM;

	marks_take(&d->marks, &mark, first, pages, false);
	for (uint64_t i = 0; !err && i < pages; i++) {
		int found = read_memory(d, first + i, to + i * PAGE_BYTES, 0);
		on_disk[i] = found == ON_DISK;
		/* What was on disk becomes PENDING only while nothing is in flight. */
		if (found < 0 || found == ON_SOURCE)
			err = found < 0 ? found : -EIO;
	}
	if (!err && copies_are_on(d) && !*is_late)
		read_copies(d, first, pages, to, on_disk, is_late);
	for (uint64_t i = 0, n; !err && i < pages; i += n) {
		for (n = 1; i + n < pages && on_disk[i + n] == on_disk[i];)
			n++;
		if (on_disk[i])
			err = read_disk(d, first + i, n, to + i * PAGE_BYTES, buffer);
	}
	marks_drop(&d->marks, &mark);
	return err;
}

/* So many of the first pages, PENDING a moment ago, come from the other host.  Where one was
 * fetched, written or trimmed meanwhile, that counts, also where the other host has dropped its pages since:
 * *again. */
static int read_source(struct device *d, uint64_t first, uint64_t pages, uint8_t *to,
		       uint64_t *n, bool *again)
{
	*again = false;
	for (*n = 1; *n < pages && *n < FETCH_PAGES && device_state(d, first + *n) == PENDING;)
		++*n;
	int err = fetch_pages(d, first, *n, to);
	for (uint64_t i = 0; err && i < *n; i++)
		*again |= device_state(d, first + i) != PENDING;
	return err;
}

/* At an error the first `*done` pages are there, so that -EAGAIN costs no page twice. */
static int read_pages(struct device *d, uint64_t first, uint64_t pages, uint8_t *to,
		      unsigned flags, uint64_t *done, bool *is_late)
{
	uint64_t run = 0;

	for (uint64_t i = 0; i <= pages; i++) {
		int found = i == pages ? IN_MEMORY : read_memory(d, first + i,
								 to + i * PAGE_BYTES, flags);
		*done = i - run;
		if (found < 0)
			return found;
		if (found != IN_MEMORY && flags & REQUEST_NOWAIT)
			return -EAGAIN;
		run += found == ON_DISK;
		if (run && (found != ON_DISK || run == DISK_RUN_PAGES)) {
			uint64_t end = found == ON_DISK ? i + 1 : i;
			int err = read_run(d, first + end - run, run, to + (end - run) * PAGE_BYTES, is_late);
			if (err)
				return err;
			run = 0;
		}
		if (found == ON_SOURCE) {
			uint64_t n;
			bool again;
			int err = read_source(d, first + i, pages - i, to + i * PAGE_BYTES, &n, &again);
			if (err && !again)
				return err;
			i += err ? (uint64_t)-1 : n - 1;      /* once more, or behind them */
		}
	}
	return 0;
}

/* A part of one page. */
static int read_part(struct device *d, uint64_t offset, uint64_t count, uint8_t *to,
		     unsigned flags, bool *is_late)
{
	uint8_t page[PAGE_BYTES];
	uint64_t done;
	int err = read_pages(d, offset / PAGE_BYTES, 1, page, flags, &done, is_late);

	if (!err)
		memcpy(to, page + offset % PAGE_BYTES, count);
	return err;
}

int request_read(struct device *d, void *to, uint64_t count, uint64_t offset, unsigned flags,
		 struct progress *p)
{
	bool is_late = false;
	int err = 0;

	while (!err && p->done < count) {
		uint64_t at = offset + p->done, left = count - p->done, pages = 0;
		uint64_t n = min_of(left, PAGE_BYTES - at % PAGE_BYTES);
		if (n == PAGE_BYTES) {
			n = left / PAGE_BYTES * PAGE_BYTES;
			err = read_pages(d, at / PAGE_BYTES, n / PAGE_BYTES, (uint8_t *)to + p->done,
					 flags, &pages, &is_late);
		} else {
			err = read_part(d, at, n, (uint8_t *)to + p->done, flags, &is_late);
		}
		p->done += err ? pages * PAGE_BYTES : n;
	}
	return err;
}

/* --- Writing ---------------------------------------------------------------------------------- */

/* A built page becomes the page; otherwise it is still to be abandoned. */
static int publish(struct device *d, uint64_t page, const struct tmem_handle *handle,
		   const struct tmem_fresh *fresh, unsigned flags, uint32_t *old)
{
	int err = place_lock(d, handle, flags);

	if (err)
		return err;
	err = place_publish(d, page, handle, fresh, old);
	d->tmem->unlock(d->host, handle);
	return err;
}

/* tmem must not take one page more of the device.  One that is there may be replaced all the same. */
static bool must_not_grow(const struct device *d, uint64_t page)
{
	return device_state(d, page) != TMEM && device_over_quota(d);
}

static unsigned tmem_flags(const struct device *d, uint64_t page, unsigned flags)
{
	return (device_state(d, page) == TMEM ? TMEM_REPLACE : 0) |
	       (flags & REQUEST_NOWAIT ? TMEM_NOWAIT : 0);
}

/* Stores pages at the speed of a copy, to be compressed afterwards: how many, 0 when put() is to
 * take the first, or -EAGAIN. */
static int put_staged(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		      unsigned flags)
{
	struct tmem_handle handles[TMEM_STAGE_MOST];
	struct tmem_fresh fresh[TMEM_STAGE_MOST];
	uint32_t dead[TMEM_STAGE_MOST];
	unsigned n = (unsigned)min_of(pages, TMEM_STAGE_MOST), n_dead = 0;
	int err = 0, stored = 0;

	if (must_not_grow(d, first))
		return 0;
	for (unsigned i = 0; i < n; i++)
		handles[i] = device_handle(d, first + i);
	int staged = d->tmem->stage(d->host, handles, from, n, device_compress(d),
				    tmem_flags(d, first, flags), fresh);
	for (; stored < staged && !must_not_grow(d, first + (uint64_t)stored); stored++) {
		err = publish(d, first + (uint64_t)stored, &handles[stored], &fresh[stored], flags,
			      &dead[n_dead]);
		if (err)
			break;
		device_touch(d, first + (uint64_t)stored, false);
		n_dead += dead[n_dead] != 0;
	}
	for (int i = stored; i < staged; i++)
		d->tmem->abandon(d->host, &fresh[i]);
	d->tmem->release_all(d->host, dead, n_dead);
	count_add(&d->count.succ_stores, (uint64_t)(stored > 0 ? stored : 0));
	if (staged == -EAGAIN || (!stored && err == -EAGAIN))
		return -EAGAIN;
	return stored;
}

/* 1: stored.  0: rejected, the page goes to disk, and an older one in tmem still serves until it
 * is there. */
static int put(struct device *d, uint64_t page, const uint8_t *from, unsigned flags)
{
	struct tmem_handle handle = device_handle(d, page);
	struct tmem_fresh fresh;
	uint32_t old;

	if (must_not_grow(d, page))
		return 0;
	int err = d->tmem->build(d->host, &handle, from, device_compress(d), tmem_flags(d, page, flags),
				 &fresh);
	if (err)
		return err == -EAGAIN ? err : 0;
	err = publish(d, page, &handle, &fresh, flags, &old);
	if (err) {
		d->tmem->abandon(d->host, &fresh);
		return err == -EAGAIN ? err : 0;
	}
	device_touch(d, page, false);
	d->tmem->release(d->host, old);
	count_up(&d->count.succ_stores);
	return 1;
}

/* How many of the pages tmem took, 0 when it rejects the first; or -EAGAIN. */
static int put_some(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		    unsigned flags)
{
	int stored = put_staged(d, first, pages, from, flags);

	return stored ? stored : put(d, first, from, flags);
}

/* On the slot that is the page's now: what was put since then is older than this write, or in flight
 * together with it, and is dropped. */
static void now_on_disk(struct device *d, uint64_t first, uint64_t pages)
{
	for (uint64_t page = first; page < first + pages; page++) {
		place_become(d, page, DISK);
		device_touch(d, page, false);
	}
}

/* At most DISK_RUN_PAGES pages.  If the disk fails nothing changes: what was there still serves. */
static int write_run(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		     bool sync)
{
	uint8_t *buffer = buffer_of_thread();
	struct mark mark;

	if (!buffer)
		return -ENOMEM;
	memcpy(buffer, from, pages * PAGE_BYTES);
	marks_take(&d->marks, &mark, first, pages, true);
	/* A write that fails leaves either page there, or a piece of each. */
	for (uint64_t page = first; page < first + pages; page++)
		copies_forget(d, page);
	int err = disk_write(&d->disk, first, (uint32_t)pages, buffer);
	if (!err && sync)
		err = disk_sync(&d->disk);
	if (!err) {
		count_add(&d->count.disk_writes, pages);
		now_on_disk(d, first, pages);
	} else {
		err = device_disk_error(d, err);
	}
	marks_drop(&d->marks, &mark);
	return err;
}

/* Writes to the zone and FUA writes bypass tmem. */
static bool bypasses(const struct device *d, uint64_t page, unsigned flags)
{
	return flags & REQUEST_FUA || zone_has(&d->zone, page);
}

/* A swap header must outlive the host's reboot whether or not a flush follows it. */
static bool is_durable(uint64_t page, unsigned flags)
{
	return page == 0 || flags & REQUEST_FUA;
}

/* How many of the first pages tmem takes; a page that bypasses it, or that it has rejected before,
 * is for the disk. */
static int to_tmem(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		   unsigned flags, struct progress *p)
{
	if (bypasses(d, first, flags))
		return 0;
	pages = zone_run(&d->zone, first, pages);
	int stored = p->rejected ? 0 : put_some(d, first, pages, from, flags);
	p->rejected = !stored && flags & REQUEST_NOWAIT;
	if (!stored && !p->rejected)
		count_up(&d->count.failed_stores);
	return stored;
}

/* At -EAGAIN the first `*done` pages are stored and counted, and none of the others. */
static int write_pages(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		       unsigned flags, struct progress *p, uint64_t *done)
{
	uint64_t run = 0;

	for (uint64_t i = 0; i < pages; *done = i) {
		int stored = to_tmem(d, first + i, pages - i, from + i * PAGE_BYTES, flags, p);
		if (stored < 0)
			return stored;
		if (!stored && flags & REQUEST_NOWAIT)
			return -EAGAIN;
		if (!stored) {
			run++;
			i++;
		}
		if (run && (stored || run == DISK_RUN_PAGES || i == pages)) {
			uint64_t start = i - run;
			int err = write_run(d, first + start, run, from + start * PAGE_BYTES,
					    is_durable(first + start, flags));
			if (err)
				return err;
			run = 0;
		}
		i += (uint64_t)stored;
	}
	return 0;
}

/* The page as it is, with what was noted of it.  Under the mark. */
static int read_noted(struct device *d, uint64_t page, struct noted *noted, uint8_t *to)
{
	struct tmem_copy copy;

	place_note(d, page, 0, noted, &copy);
	if (noted->slot.ref)
		return d->tmem->open(d->host, &copy, to);
	if (noted->state == HOLE) {
		memset(to, 0, PAGE_BYTES);
		return 0;
	}
	if (noted->state != DISK)
		return missing_page_error(d, noted->state);
	int err = disk_read(&d->disk, page, 1, to);
	if (err)
		return device_disk_error(d, err);
	count_up(&d->count.disk_reads);
	return 0;
}

/* A part of one page: read, merged and written under the page's mark, again from the read when a
 * put or trim came between.  `from` NULL writes zeros. */
static int write_part(struct device *d, uint64_t offset, uint64_t count, const uint8_t *from,
		      unsigned flags)
{
	uint64_t page = offset / PAGE_BYTES;
	uint8_t *merged = buffer_of_thread();
	struct noted noted;
	struct mark mark;
	int err;

	if (!merged)
		return -ENOMEM;
	err = fetch_page(d, page);
	if (err)
		return err;
	marks_take(&d->marks, &mark, page, 1, true);
	do {
		err = read_noted(d, page, &noted, merged);
		if (err)
			break;
		if (from)
			memcpy(merged + offset % PAGE_BYTES, from, count);
		else
			memset(merged + offset % PAGE_BYTES, 0, count);
		err = bypasses(d, page, flags) ? 1 : keep_in_tmem(d, page, &noted, merged);
		if (err == 1) {
			if (!bypasses(d, page, flags))
				count_up(&d->count.failed_stores);
			err = keep_on_disk(d, page, &noted, merged, is_durable(page, flags));
		}
	} while (err == -ESTALE);
	marks_drop(&d->marks, &mark);
	return err;
}

int request_write(struct device *d, const void *from, uint64_t count, uint64_t offset,
		  unsigned flags, struct progress *p)
{
	int err = 0;

	while (!err && p->done < count) {
		const uint8_t *next = (const uint8_t *)from + p->done;
		uint64_t at = offset + p->done, left = count - p->done, pages = 0;
		uint64_t n = min_of(left, PAGE_BYTES - at % PAGE_BYTES);
		if (n == PAGE_BYTES) {
			n = left / PAGE_BYTES * PAGE_BYTES;
			err = write_pages(d, at / PAGE_BYTES, n / PAGE_BYTES, next, flags, p, &pages);
		} else if (flags & REQUEST_NOWAIT) {
			err = -EAGAIN;
		} else {
			err = write_part(d, at, n, next, flags);
		}
		p->done += err ? pages * PAGE_BYTES : n;
	}
	return err;
}

int request_flush(struct device *d)
{
	int err = disk_sync(&d->disk);

	return err ? device_disk_error(d, err) : 0;
}

/* --- Trim and zeroes --------------------------------------------------------------------------- */

/* The zone's pages become zeros in the disk file, before the answer: there is no map to say so. */
static int drop_zone(struct device *d, uint64_t first, uint64_t pages, bool fast)
{
	struct mark mark;
	int err = 0;

	for (uint64_t done = 0; !err && done < pages;) {
		uint64_t n = min_of(pages - done, DISK_RUN_PAGES);
		marks_take(&d->marks, &mark, first + done, n, true);
		err = disk_clear(&d->disk, first + done, (uint32_t)n, fast);
		if (!err)
			now_on_disk(d, first + done, n);
		marks_drop(&d->marks, &mark);
		done += n;
	}
	return err && err != -EOPNOTSUPP ? device_disk_error(d, err) : err;
}

/* The whole pages inside a range. */
static int drop_inside(struct device *d, uint64_t count, uint64_t offset, unsigned flags)
{
	uint64_t first = (offset + PAGE_BYTES - 1) / PAGE_BYTES, end = (offset + count) / PAGE_BYTES;
	int err = 0;

	if (first >= end)
		return 0;
	for (uint64_t page = first, n; !err && page < end; page += n) {
		n = zone_run(&d->zone, page, end - page);
		if (zone_has(&d->zone, page))
			err = drop_zone(d, page, n, flags & REQUEST_FAST_ZERO);
		else
			device_drop(d, page, n, HOLE);
	}
	if (err)
		return err;
	count_add(&d->count.trims, end - first);
	if (!(flags & REQUEST_FUA))
		return 0;
	err = punch_range(d, first, end - first, false);
	return err ? err : request_flush(d);
}

int request_trim(struct device *d, uint64_t count, uint64_t offset, unsigned flags)
{
	return drop_inside(d, count, offset, flags);
}

int request_zero(struct device *d, uint64_t count, uint64_t offset, unsigned flags)
{
	uint64_t head = min_of(count, (PAGE_BYTES - offset % PAGE_BYTES) % PAGE_BYTES);
	uint64_t tail = (offset + count) % PAGE_BYTES;
	int err = 0;

	if (tail > count - head)
		tail = 0;              /* it is in the head's page */
	if (flags & REQUEST_FAST_ZERO && (head || tail))
		return -EOPNOTSUPP;    /* it may take a disk read and a disk write */
	if (head)
		err = write_part(d, offset, head, NULL, flags);
	if (!err)
		err = drop_inside(d, count - head - tail, offset + head, flags);
	if (!err && tail)
		err = write_part(d, offset + count - tail, tail, NULL, flags);
	return err;
}

/* A page that reads as an I/O error is not a hole: a copy of the disk would have zeros there. */
static bool is_hole(const struct device *d, uint64_t page)
{
	return device_state(d, page) == HOLE;
}

size_t request_extents(const struct device *d, uint64_t count, uint64_t offset, struct nbd_extent *to,
		       size_t most)
{
	uint64_t page = offset / PAGE_BYTES, end = (offset + count + PAGE_BYTES - 1) / PAGE_BYTES;
	size_t n = 0;

	if (end > d->pages)
		end = d->pages;
	while (page < end && n < most) {
		bool hole = is_hole(d, page);
		uint64_t first = page;
		while (page < end && is_hole(d, page) == hole)
			page++;
		to[n++] = (struct nbd_extent){first * PAGE_BYTES, (page - first) * PAGE_BYTES, hole};
	}
	return n;
}
