/* A guest's requests.  Whole pages go page by page to tmem, what it does not take in runs to the
 * disk; ragged ends are read-modify-write.  Requests are atomic for each page, not across pages. */
#include "device.h"

#include <errno.h>
#include <string.h>

enum found { IN_MEMORY, ON_DISK };

static uint64_t min_of(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int lost(struct device *d)
{
	device_count(&d->count.lost_reads, 1);
	return -EIO;
}

/* In quarantine, see below: nothing is damaged. */
static int refused(struct device *d)
{
	device_count(&d->count.quarantined_reads, 1);
	return -EIO;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* A page without its disk: IN_MEMORY (`to` is filled), ON_DISK, or an error. */
static int read_memory(struct device *d, uint64_t page, uint8_t *to, unsigned flags)
{
	struct tmem_handle handle = device_handle(d, page);
	struct tmem_copy copy;

	if (!d->tmem->trylock(d->host, &handle)) {
		if (flags & REQUEST_NOWAIT)
			return -EAGAIN;
		d->tmem->lock(d->host, &handle);
	}
	struct tmem_found slot = d->tmem->find(d->host, &handle);
	uint8_t state = device_state(d, page);
	if (slot.ref)
		d->tmem->copy(d->host, &slot, &copy);
	d->tmem->unlock(d->host, &handle);

	if (slot.ref) {
		d->tmem->count_get(d->host, true);
		device_count(&d->count.loads, 1);
		return d->tmem->open(d->host, &copy, to);
	}
	if (state == DISK)
		return ON_DISK;
	if (state != HOLE)
		return lost(d);
	memset(to, 0, TMEM_PAGE);
	return IN_MEMORY;
}

/* At most DISK_RUN_PAGES pages that were on disk a moment ago: only now, under the mark, their
 * places are looked at. */
static int read_run(struct device *d, uint64_t first, uint64_t pages, uint8_t *to)
{
	uint8_t *buffer = disk_buffer();
	struct mark mark;
	uint64_t run = 0;
	int err = buffer ? 0 : -ENOMEM;

	marks_take(&d->marks, &mark, first, pages, false);
	for (uint64_t i = 0; !err && i <= pages; i++) {
		int found = i == pages ? IN_MEMORY : read_memory(d, first + i,
								 to + i * TMEM_PAGE, 0);
		if (found == ON_DISK) {
			run++;
			continue;
		}
		if (run) {
			err = disk_read(&d->disk, first + i - run, (uint32_t)run, buffer);
			if (err) {
				err = device_disk_failed(d, err);
				break;
			}
			device_count(&d->count.disk_reads, run);
			memcpy(to + (i - run) * TMEM_PAGE, buffer, run * TMEM_PAGE);
			run = 0;
		}
		if (found < 0)
			err = found;
	}
	marks_drop(&d->marks, &mark);
	return err;
}

/* At an error the first `*done` pages are there, so that -EAGAIN costs no page twice. */
static int read_pages(struct device *d, uint64_t first, uint64_t pages, uint8_t *to,
		      unsigned flags, uint64_t *done)
{
	uint64_t run = 0;

	for (uint64_t i = 0; i <= pages; i++) {
		int found = i == pages ? IN_MEMORY : read_memory(d, first + i,
								 to + i * TMEM_PAGE, flags);
		*done = i - run;
		if (found < 0)
			return found;
		if (found == ON_DISK) {
			if (flags & REQUEST_NOWAIT)
				return -EAGAIN;
			run++;
		}
		if (run && (found != ON_DISK || run == DISK_RUN_PAGES)) {
			uint64_t end = found == ON_DISK ? i + 1 : i;
			int err = read_run(d, first + end - run, run, to + (end - run) * TMEM_PAGE);
			if (err)
				return err;
			run = 0;
		}
	}
	return 0;
}

/* A part of one page. */
static int read_part(struct device *d, uint64_t offset, uint64_t count, uint8_t *to,
		     unsigned flags)
{
	uint8_t page[TMEM_PAGE];
	uint64_t done;
	int err = read_pages(d, offset / TMEM_PAGE, 1, page, flags, &done);

	if (!err)
		memcpy(to, page + offset % TMEM_PAGE, count);
	return err;
}

/* A device that came up dirty after a reboot may meet a guest that was suspended, whose pages are
 * gone: it reads nothing but page 0 until that was written, or read as far as its last ten bytes,
 * where the swap signature is.  A freshly booted guest does that first, a restored one never;
 * QEMU itself reads the first 512 bytes at every start.  The word lies in the arena: it outlives
 * the process as long as the guest can, and not the reboot. */
static bool is_quarantined(const struct device *d)
{
	return __atomic_load_n(d->quarantined, __ATOMIC_RELAXED) != 0;
}

static void page_zero_seen(struct device *d)
{
	if (is_quarantined(d))
		__atomic_store_n(d->quarantined, 0, __ATOMIC_RELEASE);
}

static int check_quarantine(struct device *d, uint64_t count, uint64_t offset)
{
	if (!is_quarantined(d))
		return 0;
	if (offset >= TMEM_PAGE)
		return refused(d);
	if (offset + count >= TMEM_PAGE)
		page_zero_seen(d);
	return 0;
}

int device_pread(struct device *d, void *to, uint64_t count, uint64_t offset, unsigned flags,
		 uint64_t *done)
{
	uint8_t *at = to;
	int err = check_quarantine(d, count, offset);

	*done = 0;
	while (!err && count) {
		uint64_t n = min_of(count, TMEM_PAGE - offset % TMEM_PAGE), pages = 0;
		if (n == TMEM_PAGE) {
			n = count / TMEM_PAGE * TMEM_PAGE;
			err = read_pages(d, offset / TMEM_PAGE, n / TMEM_PAGE, at, flags, &pages);
		} else {
			err = read_part(d, offset, n, at, flags);
		}
		*done += err ? pages * TMEM_PAGE : n;
		at += n;
		offset += n;
		count -= n;
	}
	if (err != -EAGAIN)
		device_count(&d->count.read_requests, 1);
	return err;
}

/* --- Writing ---------------------------------------------------------------------------------- */

static bool over_quota(const struct device *d)
{
	return __atomic_load_n(&d->count.preswap_pages, __ATOMIC_RELAXED) >=
	       __atomic_load_n(&d->max_pages, __ATOMIC_RELAXED);
}

static int lock_page(struct device *d, const struct tmem_handle *handle, unsigned flags)
{
	if (d->tmem->trylock(d->host, handle))
		return 0;
	if (flags & REQUEST_NOWAIT)
		return -EAGAIN;
	d->tmem->lock(d->host, handle);
	return 0;
}

/* A built page becomes the page; otherwise it is still to be discarded. */
static int publish(struct device *d, uint64_t page, const struct tmem_handle *handle,
		   const struct tmem_fresh *fresh, unsigned flags, uint32_t *old)
{
	int err = lock_page(d, handle, flags);

	if (err)
		return err;
	err = device_publish(d, page, handle, fresh, old);
	d->tmem->unlock(d->host, handle);
	return err;
}

/* Is tmem not to be asked?  A page that is there may be replaced all the same. */
static bool must_not_grow(const struct device *d, uint64_t page, unsigned flags)
{
	return device_state(d, page) != TMEM && (flags & REQUEST_NO_TMEM || over_quota(d));
}

static unsigned tmem_flags(const struct device *d, uint64_t page, unsigned flags)
{
	return (device_state(d, page) == TMEM ? TMEM_REPLACE : 0) |
	       (flags & REQUEST_NOWAIT ? TMEM_NOWAIT : 0);
}

/* At the speed of a copy, to be compressed afterwards: how many of the pages are stored, 0 when
 * they are for put(), or -EAGAIN. */
static int put_staged(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		      unsigned flags)
{
	struct tmem_handle handles[TMEM_STAGE_MOST];
	struct tmem_fresh fresh[TMEM_STAGE_MOST];
	uint32_t dead[TMEM_STAGE_MOST];
	unsigned n = (unsigned)min_of(pages, TMEM_STAGE_MOST), n_dead = 0;
	int err = 0, stored = 0;

	if (must_not_grow(d, first, flags))
		return 0;
	for (unsigned i = 0; i < n; i++)
		handles[i] = device_handle(d, first + i);
	int staged = d->tmem->stage(d->host, handles, from, n, device_codec(d),
				    tmem_flags(d, first, flags), fresh);
	for (; stored < staged && !must_not_grow(d, first + (uint64_t)stored, flags); stored++) {
		err = publish(d, first + (uint64_t)stored, &handles[stored], &fresh[stored], flags,
			      &dead[n_dead]);
		if (err)
			break;
		n_dead += dead[n_dead] != 0;
	}
	for (int i = stored; i < staged; i++)
		d->tmem->discard(d->host, &fresh[i]);
	d->tmem->release_all(d->host, dead, n_dead);
	device_count(&d->count.succ_stores, (uint64_t)(stored > 0 ? stored : 0));
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

	if (must_not_grow(d, page, flags))
		return 0;
	int err = d->tmem->build(d->host, &handle, from, device_codec(d), tmem_flags(d, page, flags),
				 &fresh);
	if (err)
		return err == -EAGAIN ? err : 0;
	err = publish(d, page, &handle, &fresh, flags, &old);
	if (err) {
		d->tmem->discard(d->host, &fresh);
		return err == -EAGAIN ? err : 0;
	}
	d->tmem->release(d->host, old);
	device_count(&d->count.succ_stores, 1);
	return 1;
}

/* How many of the pages tmem took, 0 when it rejects the first; or -EAGAIN. */
static int put_some(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		    unsigned flags)
{
	int stored = put_staged(d, first, pages, from, flags);

	return stored ? stored : put(d, first, from, flags);
}

/* At most DISK_RUN_PAGES pages.  If the disk fails nothing changes: what was there still serves. */
static int write_run(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		     bool sync)
{
	uint8_t *buffer = disk_buffer();
	struct mark mark;

	if (!buffer)
		return -ENOMEM;
	memcpy(buffer, from, pages * TMEM_PAGE);
	marks_take(&d->marks, &mark, first, pages, true);
	int err = disk_write(&d->disk, first, (uint32_t)pages, buffer);
	if (!err && sync)
		err = disk_sync(&d->disk);
	if (!err) {
		device_count(&d->count.disk_writes, pages);
		device_now_on_disk(d, first, pages);
	} else {
		err = device_disk_failed(d, err);
	}
	marks_drop(&d->marks, &mark);
	return err;
}

/* Page 0 and FUA writes bypass tmem: a swap header must outlive the host's reboot. */
static bool bypasses(uint64_t page, unsigned flags)
{
	return page == 0 || flags & REQUEST_FUA;
}

/* How many of the first pages tmem takes; a page that bypasses it, or that it has rejected before,
 * is for the disk. */
static int to_tmem(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		   unsigned flags)
{
	if (bypasses(first, flags))
		return 0;
	int stored = flags & REQUEST_REJECTED ? 0 : put_some(d, first, pages, from, flags);
	if (!stored && !(flags & REQUEST_NOWAIT))
		device_count(&d->count.failed_stores, 1);
	return stored;
}

/* At -EAGAIN and DEVICE_REJECTED the first `*done` pages are stored and counted, and none of the
 * others. */
static int write_pages(struct device *d, uint64_t first, uint64_t pages, const uint8_t *from,
		       unsigned flags, uint64_t *done)
{
	uint64_t run = 0;

	for (uint64_t i = 0; i < pages; *done = i) {
		int stored = to_tmem(d, first + i, pages - i, from + i * TMEM_PAGE, flags);
		if (stored < 0)
			return stored;
		if (!stored && flags & REQUEST_NOWAIT)
			return bypasses(first + i, flags) ? -EAGAIN : DEVICE_REJECTED;
		flags &= ~(unsigned)REQUEST_REJECTED;
		if (!stored) {
			run++;
			i++;
		}
		if (run && (stored || run == DISK_RUN_PAGES || i == pages)) {
			uint64_t start = i - run;
			int err = write_run(d, first + start, run, from + start * TMEM_PAGE,
					    bypasses(first + start, flags));
			if (err)
				return err;
			run = 0;
		}
		i += (uint64_t)stored;
	}
	return 0;
}

/* What a page is, noted under the lock: whoever comes back compares all three. */
struct noted {
	struct tmem_found slot;
	uint8_t state;
};

static struct noted look(struct device *d, uint64_t page, const struct tmem_handle *handle)
{
	return (struct noted){d->tmem->find(d->host, handle), device_state(d, page)};
}

static bool same(const struct noted *a, const struct noted *b)
{
	return a->slot.ref == b->slot.ref && a->slot.seq == b->slot.seq && a->state == b->state;
}

/* The page as it is, with what was noted of it.  Under the mark. */
static int read_noted(struct device *d, uint64_t page, struct noted *noted, uint8_t *to)
{
	struct tmem_handle handle = device_handle(d, page);
	struct tmem_copy copy;

	if (page && is_quarantined(d))
		return refused(d);
	d->tmem->lock(d->host, &handle);
	*noted = look(d, page, &handle);
	if (noted->slot.ref)
		d->tmem->copy(d->host, &noted->slot, &copy);
	d->tmem->unlock(d->host, &handle);

	if (noted->slot.ref)
		return d->tmem->open(d->host, &copy, to);
	if (noted->state == HOLE) {
		memset(to, 0, TMEM_PAGE);
		return 0;
	}
	if (noted->state != DISK)
		return lost(d);
	int err = disk_read(&d->disk, page, 1, to);
	if (err)
		return device_disk_failed(d, err);
	device_count(&d->count.disk_reads, 1);
	return 0;
}

/* 0: stored.  1: rejected.  -ESTALE: the page changed meanwhile. */
static int put_noted(struct device *d, uint64_t page, const struct noted *noted,
		     const uint8_t *from, unsigned flags)
{
	struct tmem_handle handle = device_handle(d, page);
	struct tmem_fresh fresh;
	uint32_t old = 0;

	if (!noted->slot.ref && (flags & REQUEST_NO_TMEM || over_quota(d)))
		return 1;
	if (d->tmem->build(d->host, &handle, from, device_codec(d),
			   noted->slot.ref ? TMEM_REPLACE : 0, &fresh))
		return 1;
	d->tmem->lock(d->host, &handle);
	struct noted now = look(d, page, &handle);
	int err = !same(&now, noted) ? -ESTALE :
		  device_publish(d, page, &handle, &fresh, &old) ? 1 : 0;
	d->tmem->unlock(d->host, &handle);
	if (err) {
		d->tmem->discard(d->host, &fresh);
		return err;
	}
	d->tmem->release(d->host, old);
	device_count(&d->count.succ_stores, 1);
	return 0;
}

static int disk_write_noted(struct device *d, uint64_t page, const struct noted *noted,
			    const uint8_t *from, bool sync)
{
	struct tmem_handle handle = device_handle(d, page);
	uint32_t dead = 0;
	int err = disk_write(&d->disk, page, 1, from);

	if (!err && sync)
		err = disk_sync(&d->disk);
	if (err)
		return device_disk_failed(d, err);
	device_count(&d->count.disk_writes, 1);
	d->tmem->lock(d->host, &handle);
	struct noted now = look(d, page, &handle);
	if (same(&now, noted)) {
		dead = device_become(d, page, &handle, DISK);
	} else {
		device_wrote_in_vain(d, page);
		err = -ESTALE;
	}
	d->tmem->unlock(d->host, &handle);
	d->tmem->release(d->host, dead);
	return err;
}

/* A part of one page: read, merged and written under the page's mark, again from the read when a
 * put or trim came between.  `from` NULL writes zeros. */
static int write_part(struct device *d, uint64_t offset, uint64_t count, const uint8_t *from,
		      unsigned flags)
{
	uint64_t page = offset / TMEM_PAGE;
	uint8_t *merged = disk_buffer();
	struct noted noted;
	struct mark mark;
	int err;

	if (!merged)
		return -ENOMEM;
	marks_take(&d->marks, &mark, page, 1, true);
	do {
		err = read_noted(d, page, &noted, merged);
		if (err)
			break;
		if (from)
			memcpy(merged + offset % TMEM_PAGE, from, count);
		else
			memset(merged + offset % TMEM_PAGE, 0, count);
		err = bypasses(page, flags) ? 1 : put_noted(d, page, &noted, merged, flags);
		if (err == 1) {
			if (!bypasses(page, flags))
				device_count(&d->count.failed_stores, 1);
			err = disk_write_noted(d, page, &noted, merged, bypasses(page, flags));
		}
	} while (err == -ESTALE);
	marks_drop(&d->marks, &mark);
	return err;
}

int device_pwrite(struct device *d, const void *from, uint64_t count, uint64_t offset,
		  unsigned flags, uint64_t *done)
{
	const uint8_t *at = from;
	bool page_zero = offset < TMEM_PAGE;
	int err = 0;

	*done = 0;
	while (!err && count) {
		uint64_t n = min_of(count, TMEM_PAGE - offset % TMEM_PAGE), pages = 0;
		if (n == TMEM_PAGE) {
			n = count / TMEM_PAGE * TMEM_PAGE;
			err = write_pages(d, offset / TMEM_PAGE, n / TMEM_PAGE, at, flags, &pages);
		} else if (flags & REQUEST_NOWAIT) {
			err = -EAGAIN;
		} else {
			err = write_part(d, offset, n, at, flags);
		}
		*done += err ? pages * TMEM_PAGE : n;
		flags &= ~(unsigned)REQUEST_REJECTED;
		at += n;
		offset += n;
		count -= n;
	}
	if (!err && page_zero)
		page_zero_seen(d);
	if (err != -EAGAIN && err != DEVICE_REJECTED)
		device_count(&d->count.write_requests, 1);
	return err;
}

int device_flush(struct device *d)
{
	int err = disk_sync(&d->disk);

	return err ? device_disk_failed(d, err) : 0;
}

/* --- Trim and zeroes --------------------------------------------------------------------------- */

/* A hole is passed over without its lock: a put in flight there is then the later of the two. */
void device_forget(struct device *d, uint64_t first, uint64_t pages)
{
	for (uint64_t page = first; page < first + pages; page++) {
		if (device_state(d, page) == HOLE)
			continue;
		struct tmem_handle handle = device_handle(d, page);
		d->tmem->lock(d->host, &handle);
		uint32_t dead = device_become(d, page, &handle, HOLE);
		d->tmem->unlock(d->host, &handle);
		d->tmem->release(d->host, dead);
		d->tmem->count_flush(d->host, dead != 0);
		if (dead)
			device_count(&d->count.invalidates, 1);
	}
}

/* The whole pages inside a range. */
static int forget_inside(struct device *d, uint64_t count, uint64_t offset, unsigned flags)
{
	uint64_t first = (offset + TMEM_PAGE - 1) / TMEM_PAGE, end = (offset + count) / TMEM_PAGE;

	if (first >= end)
		return 0;
	if (first == 0)
		page_zero_seen(d);
	device_forget(d, first, end - first);
	device_count(&d->count.trims, end - first);
	if (!(flags & REQUEST_FUA))
		return 0;
	int err = device_punch(d, first, end - first, false);
	return err ? err : device_flush(d);
}

int device_trim(struct device *d, uint64_t count, uint64_t offset, unsigned flags)
{
	device_count(&d->count.trim_requests, 1);
	return forget_inside(d, count, offset, flags);
}

int device_zero(struct device *d, uint64_t count, uint64_t offset, unsigned flags)
{
	uint64_t head = min_of(count, (TMEM_PAGE - offset % TMEM_PAGE) % TMEM_PAGE);
	uint64_t tail = (offset + count) % TMEM_PAGE;
	int err = 0;

	if (tail > count - head)
		tail = 0;              /* it is in the head's page */
	if (flags & REQUEST_FAST && (head || tail))
		return -EOPNOTSUPP;    /* it may take a disk read and a disk write */
	device_count(&d->count.trim_requests, 1);
	if (head)
		err = write_part(d, offset, head, NULL, flags);
	if (!err)
		err = forget_inside(d, count - head - tail, offset + head, flags);
	if (!err && tail)
		err = write_part(d, offset + count - tail, tail, NULL, flags);
	return err;
}

/* What reads as an I/O error is no hole: a copy of the disk would have zeros there. */
static bool is_hole(const struct device *d, uint64_t page)
{
	return device_state(d, page) == HOLE && !(page && is_quarantined(d));
}

size_t device_extents(const struct device *d, uint64_t count, uint64_t offset, struct extent *to,
		      size_t most)
{
	uint64_t page = offset / TMEM_PAGE, end = (offset + count + TMEM_PAGE - 1) / TMEM_PAGE;
	size_t n = 0;

	if (end > d->pages)
		end = d->pages;
	while (page < end && n < most) {
		bool hole = is_hole(d, page);
		uint64_t first = page;
		while (page < end && is_hole(d, page) == hole)
			page++;
		to[n++] = (struct extent){first * TMEM_PAGE, (page - first) * TMEM_PAGE, hole};
	}
	return n;
}
