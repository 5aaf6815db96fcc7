/* Shrink: pages go from tmem to the disk file, which a host has where the kernel's preswap had
 * guest memory; and disk space goes back where pages were trimmed. */
#include "device.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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

/* The page leaves tmem, unless it was rewritten since its slot was noted. */
static bool leave(struct device *d, uint64_t page, const struct tmem_found *slot,
		  enum page_state becomes)
{
	struct tmem_handle handle = device_handle(d, page);
	uint32_t dead = 0;

	d->tmem->lock(d->host, &handle);
	struct tmem_found now = d->tmem->find(d->host, &handle);
	if (now.ref == slot->ref && now.seq == slot->seq)
		dead = device_become(d, page, &handle, becomes);
	else if (becomes == DISK)
		device_wrote_in_vain(d, page);
	d->tmem->unlock(d->host, &handle);
	d->tmem->release(d->host, dead);
	return dead != 0;
}

/* Copies one page of tmem into the buffer and notes its slot; ref 0 where there is none, and for
 * a damaged page: it leaves tmem as lost. */
static int take(struct device *d, uint64_t page, uint8_t *to, struct tmem_found *slot,
		struct writeback *w)
{
	struct tmem_handle handle = device_handle(d, page);
	struct tmem_copy copy;

	d->tmem->lock(d->host, &handle);
	*slot = d->tmem->find(d->host, &handle);
	if (slot->ref)
		d->tmem->copy(d->host, slot, &copy);
	d->tmem->unlock(d->host, &handle);
	if (!slot->ref)
		return 0;
	int err = d->tmem->open(d->host, &copy, to);
	if (err != -EIO)
		return err;                    /* short of memory is not damaged */
	w->lost += leave(d, page, slot, LOST);
	slot->ref = 0;
	return 0;
}

int device_writeback(struct device *d, uint64_t first, uint64_t most, struct writeback *w)
{
	uint64_t pages = d->pages - first < EXTENT_PAGES ? d->pages - first : EXTENT_PAGES;
	struct tmem_found slots[EXTENT_PAGES];
	uint8_t *buffer = disk_buffer();
	struct mark mark;
	uint64_t run = 0;
	int err = 0;

	if (!buffer)
		return -ENOMEM;
	marks_take(&d->marks, &mark, first, pages, true);
	for (uint64_t i = 0, n = 0; !err && i < pages; i++) {
		slots[i].ref = 0;
		if (n < most)
			err = take(d, first + i, buffer + i * TMEM_PAGE, &slots[i], w);
		n += slots[i].ref != 0;
	}
	for (uint64_t i = 0; !err && i <= pages; i++) {
		if (i < pages && slots[i].ref) {
			run++;
			continue;
		}
		if (!run)
			continue;
		err = write_out(d, first + i - run, run, buffer + (i - run) * TMEM_PAGE);
		if (err) {
			device_disk_failed(d, err);
			break;
		}
		device_count(&d->count.disk_writes, run);
		for (uint64_t j = i - run; j < i; j++)
			w->moved += leave(d, first + j, &slots[j], DISK);
		run = 0;
	}
	marks_drop(&d->marks, &mark);
	device_count(&d->count.written_back_pages, w->moved);
	return err;
}

struct ages {
	uint64_t object;
	struct aged *extents;
};

static void add_age(void *ctx, uint32_t index, uint64_t seq)
{
	struct ages *a = ctx;
	struct aged *e = &a->extents[((uint64_t)index << 4 | a->object) / EXTENT_PAGES];

	e->pages++;
	e->seq += (double)seq;
}

static int colder(const void *a, const void *b)
{
	const struct aged *x = a, *y = b;

	return (x->seq > y->seq) - (x->seq < y->seq);
}

size_t device_coldest(struct device *d, struct aged *to)
{
	uint64_t extents = (d->pages + EXTENT_PAGES - 1) / EXTENT_PAGES;
	size_t n = 0;

	memset(to, 0, extents * sizeof *to);
	for (uint64_t object = 0; object < 16; object++) {
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

static uint8_t stale_byte(const struct device *d, uint64_t page)
{
	return __atomic_load_n(&d->stale[page / 8], __ATOMIC_RELAXED);
}

static bool is_stale(const struct device *d, uint64_t page)
{
	return stale_byte(d, page) >> page % 8 & 1;
}

static void not_stale(struct device *d, uint64_t page)
{
	device_clear_bit(d->outdated, page);
	if (device_clear_bit(d->stale, page))
		__atomic_fetch_sub(&d->stale_pages, 1, __ATOMIC_RELAXED);
}

/* Pages that are not on disk, under their mark.  What fails is tried again. */
static int punch_marked(struct device *d, uint64_t first, uint64_t pages)
{
	int err = disk_punch(&d->disk, first, pages);

	if (!err) {
		device_count(&d->count.punched_pages, pages);
		return 0;
	}
	for (uint64_t page = first; page < first + pages; page++)
		device_make_stale(d, page);
	return device_disk_failed(d, err);
}

/* P is looked at again under the mark: it becomes DISK under none other. */
static int punch_run(struct device *d, uint64_t first, uint64_t pages)
{
	struct mark mark;
	uint64_t run = 0;
	int err = 0;

	marks_take(&d->marks, &mark, first, pages, true);
	for (uint64_t i = 0; !err && i <= pages; i++) {
		if (i < pages) {
			not_stale(d, first + i);
			if (device_state(d, first + i) != DISK) {
				run++;
				continue;
			}
		}
		if (run) {
			err = punch_marked(d, first + i - run, run);
			run = 0;
		}
	}
	marks_drop(&d->marks, &mark);
	return err;
}

#define PUNCH_PAGES 512u               /* holds a guest's requests up no longer than a trim does */

int device_punch(struct device *d, uint64_t first, uint64_t pages, bool all)
{
	uint64_t run = 0, end = first + pages;

	for (uint64_t page = first; page <= end; page++) {
		/* Eight pages at a glance: most of a large device is not stale. */
		if (!all && !run && page % 8 == 0 && page + 8 <= end && stale_byte(d, page) == 0) {
			page += 7;
			continue;
		}
		bool wanted = page < end && (all ? device_state(d, page) != DISK :
						   is_stale(d, page));
		if (run && (!wanted || run == PUNCH_PAGES)) {
			int err = punch_run(d, page - run, run);
			if (err)
				return err;
			run = 0;
		}
		run += wanted;
	}
	return 0;
}

static bool lose(struct device *d, uint64_t page)
{
	struct tmem_handle handle = device_handle(d, page);
	uint32_t dead = 0;

	d->tmem->lock(d->host, &handle);
	bool was_there = device_state(d, page) == DISK;
	if (was_there)
		dead = device_become(d, page, &handle, LOST);
	d->tmem->unlock(d->host, &handle);
	d->tmem->release(d->host, dead);
	return was_there;
}

/* Lost first, then longer: between the two its zeros would pass for pages. */
int64_t device_mend(struct device *d)
{
	struct mark mark;
	int64_t lost = 0;
	uint64_t size;

	if (!disk_is_cut_off(&d->disk, &size))
		return -ENOENT;
	uint64_t first = size / DISK_PAGE;
	marks_take(&d->marks, &mark, first, d->pages - first, true);
	for (uint64_t page = first; page < d->pages; page++)
		lost += lose(d, page);
	int err = disk_lengthen(&d->disk);
	marks_drop(&d->marks, &mark);
	return err ? device_disk_failed(d, err) : lost;
}
