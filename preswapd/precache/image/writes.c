/* SPDX-License-Identifier: BSD-3-Clause */
#include "writes.h"

#include <errno.h>
#include <string.h>

#include "cache.h"

/* Trims hold others up no longer than that takes. */
#define CLEAR_PAGES 16384u

static uint64_t pages_to(uint64_t end)
{
	return (end + PAGE_BYTES - 1) / PAGE_BYTES;
}

/* Of the file: it may end within its last page. */
static uint64_t end_of(const struct image *i, uint64_t page)
{
	return min_of((page + 1) * PAGE_BYTES, i->file.size);
}

/* --- Under the mark ------------------------------------------------------------------------------- */

static int read_page(struct image *i, uint64_t page, uint8_t *to)
{
	if (image_is_cached(i) && cache_get(i, page, to))
		return 0;
	return image_read_file(i, page, 1, to);
}

/* Pages that the bytes from `at` to `end` cover in part, of those from `first` on in the buffer. */
static int read_ends(struct image *i, uint64_t at, uint64_t end, uint8_t *buffer)
{
	uint64_t first = at / PAGE_BYTES, last = (end - 1) / PAGE_BYTES;
	bool head = at % PAGE_BYTES != 0, tail = end < end_of(i, last);
	int err = 0;

	if (head || (first == last && tail))
		err = read_page(i, first, buffer);
	if (!err && tail && last != first)
		err = read_page(i, last, buffer + (last - first) * PAGE_BYTES);
	return err;
}

static void drop(struct image *i, uint64_t first, uint64_t pages)
{
	if (i->pool != NO_POOL)
		for (uint64_t page = first; page < first + pages; page++)
			cache_drop(i, page);
}

/* Where pages are cached at their second read only, a write is none: it keeps cached what was. */
static void replace(struct image *i, uint64_t first, uint64_t pages, const uint8_t *from)
{
	if (!image_is_cached(i)) {
		drop(i, first, pages);
		return;
	}
	for (uint64_t n = 0; n < pages; n++)
		if (!admission_is_on(&i->admission) || cache_drop(i, first + n))
			cache_put(i, first + n, from + n * PAGE_BYTES);
}

/* Whole pages; the last one is padded with zeros where the file ends. */
static int write_pages(struct image *i, uint64_t first, uint32_t pages, const uint8_t *buffer, bool sync)
{
	int err = file_write(&i->file, first, pages, buffer);

	if (err) {
		image_file_error(i, err);
	} else {
		count_add(&i->count.disk_writes, pages);
		if (sync)
			err = writes_sync(i);
	}
	if (err)
		drop(i, first, pages);
	else
		replace(i, first, pages, buffer);
	return err;
}

/* --- Requests --------------------------------------------------------------------------------------- */

/* Bytes from `at` to `end`, which lie in BUFFER_PAGES pages at most.  `from` NULL writes zeros. */
static int write_run(struct image *i, const uint8_t *from, uint64_t at, uint64_t end, bool sync)
{
	uint8_t *buffer = buffer_of_thread();
	uint64_t first = at / PAGE_BYTES, start = first * PAGE_BYTES;
	uint32_t pages = (uint32_t)(pages_to(end) - first);
	struct mark mark;

	if (!buffer)
		return -ENOMEM;
	marks_take(&i->marks, &mark, first, pages, true);
	int err = read_ends(i, at, end, buffer);
	if (!err) {
		if (from)
			memcpy(buffer + (at - start), from, end - at);
		else
			memset(buffer + (at - start), 0, end - at);
		if (end == i->file.size)
			memset(buffer + (end - start), 0, pages * PAGE_BYTES - (end - start));
		err = write_pages(i, first, pages, buffer, sync);
	}
	marks_drop(&i->marks, &mark);
	return err;
}

int writes_write(struct image *i, const uint8_t *from, uint64_t count, uint64_t offset, unsigned flags)
{
	uint64_t at = offset, end = offset + count;
	int err = 0;

	while (!err && at < end) {
		uint64_t next = min_of(end, (at / PAGE_BYTES + BUFFER_PAGES) * PAGE_BYTES);
		err = write_run(i, from + (at - offset), at, next, flags & REQUEST_FUA);
		at = next;
	}
	if (!err && count)
		count_add(&i->count.writes, pages_to(end) - offset / PAGE_BYTES);
	return err;
}

/* At most CLEAR_PAGES whole pages, which lose their blocks, or become zeros.  What is cached goes in any
 * case: how far a request came that failed nobody knows. */
static int clear_run(struct image *i, uint64_t first, uint64_t pages, bool trim, unsigned flags)
{
	struct mark mark;

	marks_take(&i->marks, &mark, first, pages, true);
	int err = trim ? file_trim(&i->file, first, pages) :
			 file_clear(&i->file, first, pages, flags & REQUEST_MAY_TRIM,
				    flags & REQUEST_FAST_ZERO);
	drop(i, first, pages);
	marks_drop(&i->marks, &mark);
	return err && err != -EOPNOTSUPP ? image_file_error(i, err) : err;
}

static int clear(struct image *i, uint64_t first, uint64_t end, bool trim, unsigned flags)
{
	int err = 0;

	for (uint64_t page = first; !err && page < end; page += CLEAR_PAGES)
		err = clear_run(i, page, min_of(end - page, CLEAR_PAGES), trim, flags);
	return err;
}

/* Behind the last page that ends with the range, or with the file. */
static uint64_t whole_to(const struct image *i, uint64_t end)
{
	return end == i->file.size ? pages_to(end) : end / PAGE_BYTES;
}

int writes_trim(struct image *i, uint64_t count, uint64_t offset, unsigned flags)
{
	int err = clear(i, pages_to(offset), whole_to(i, offset + count), true, flags);

	return !err && flags & REQUEST_FUA ? writes_sync(i) : err;
}

int writes_zero(struct image *i, uint64_t count, uint64_t offset, unsigned flags)
{
	uint64_t end = offset + count, first = pages_to(offset), last = whole_to(i, end);
	uint64_t head = min_of(end, first * PAGE_BYTES), tail = last * PAGE_BYTES;
	int err = 0;

	if (flags & REQUEST_FAST_ZERO && (head > offset || tail < end))
		return -EOPNOTSUPP;    /* it may take a disk read and a disk write */
	if (head > offset)
		err = write_run(i, NULL, offset, head, false);
	if (!err && first < last)
		err = clear(i, first, last, false, flags);
	if (!err && tail < end && head < end)
		err = write_run(i, NULL, tail > head ? tail : head, end, false);
	return !err && flags & REQUEST_FUA ? writes_sync(i) : err;
}

/* Where the kernel has lost pages of its own, nobody knows which. */
int writes_sync(struct image *i)
{
	int err = file_sync(&i->file);

	if (!err) {
		file_forget(&i->file, 0, file_pages(&i->file));
		return 0;
	}
	if (i->pool != NO_POOL)
		cache_drop_all(i);
	return image_file_error(i, err);
}
