/* SPDX-License-Identifier: BSD-3-Clause */
#include "reads.h"

#include <errno.h>
#include <string.h>

#include "cache.h"
#include "shared.h"

/* What a client wants, in bytes, and where to put it. */
struct wanted {
	uint8_t *to;
	uint64_t offset, end;
	bool is_late;                  /* what other hosts had of it did not come in time */
};

/* Of `pages` pages, which lie in `from`, what is wanted of them. */
static void hand_over(const struct wanted *w, uint64_t first, uint64_t pages, const uint8_t *from)
{
	uint64_t start = first * PAGE_BYTES, end = min_of(start + pages * PAGE_BYTES, w->end);
	uint64_t at = start > w->offset ? start : w->offset;

	if (at < end)
		memcpy(w->to + (at - w->offset), from + (at - start), end - at);
}

static bool is_whole(const struct wanted *w, uint64_t page)
{
	return page * PAGE_BYTES >= w->offset && (page + 1) * PAGE_BYTES <= w->end;
}

/* Whether it is cached; a whole page goes where it is wanted at once. */
static bool get(struct image *i, const struct wanted *w, uint64_t page)
{
	uint8_t part[PAGE_BYTES];

	if (is_whole(w, page))
		return cache_get(i, page, w->to + (page * PAGE_BYTES - w->offset));
	bool found = cache_get(i, page, part);
	if (found)
		hand_over(w, page, 1, part);
	return found;
}

/* Nothing is cached: as it comes from the file, whose writers hold a page's mark alone. */
static int read_past_cache(struct image *i, const struct wanted *w)
{
	uint8_t *buffer = buffer_of_thread();
	uint64_t first = w->offset / PAGE_BYTES, end = (w->end + PAGE_BYTES - 1) / PAGE_BYTES;
	struct mark mark;
	int err = buffer ? 0 : -ENOMEM;

	for (uint64_t page = first; !err && page < end; page += RUN_PAGES) {
		uint32_t n = (uint32_t)min_of(end - page, RUN_PAGES);
		marks_take(&i->marks, &mark, page, n, false);
		err = image_read_file(i, page, n, buffer);
		marks_drop(&i->marks, &mark);
		if (!err)
			hand_over(w, page, n, buffer);
	}
	if (!err)
		count_add(&i->count.misses, end - first);
	return err;
}

_Static_assert(RUN_PAGES <= SHARED_MOST, "a run is asked for at once");

/* Pages side by side that were not cached: `asked` of them somebody wants, and what is wrong with those
 * behind is nobody's error yet. */
struct run {
	uint64_t first;
	uint32_t asked, pages;
	uint8_t *buffer;
	uint64_t shared;               /* a bit for each that other hosts had */
};

static bool is_shared(const struct run *r, uint32_t n)
{
	return r->shared >> n & 1;
}

static int read_piece(struct image *i, const struct run *r, uint32_t from, uint32_t end)
{
	return image_read_file(i, r->first + from, end - from, r->buffer + from * PAGE_BYTES);
}

/* What others had is there.  The run ends where pages that nobody wants cannot be read. */
static int read_rest(struct image *i, struct run *r)
{
	int err = 0;

	for (uint32_t n = 0, end; !err && n < r->pages; n = end) {
		for (end = n; end < r->pages && is_shared(r, end) == is_shared(r, n);)
			end++;
		if (is_shared(r, n))
			continue;
		err = read_piece(i, r, n, end);
		if (err && end > r->asked) {
			r->pages = end = n < r->asked ? r->asked : n;
			err = n < end ? read_piece(i, r, n, end) : 0;
		}
	}
	return err;
}

static void keep(struct image *i, const struct run *r)
{
	bool sets = shared_takes(i);

	for (uint32_t n = 0; n < r->pages; n++) {
		const uint8_t *page = r->buffer + n * PAGE_BYTES;
		if (n < r->asked && !admission_note(&i->admission, r->first + n))
			continue;
		cache_put(i, r->first + n, page);
		if (is_shared(r, n))
			continue;
		if (sets)
			shared_set(i, r->first + n, page);
		else
			shared_pass(i);
	}
	if (sets)
		shared_push(i);
}

/* Under the mark.  The identity is asked once more, after other hosts had pages, and after the file was read:
 * whoever changes it changes that first, and then the bytes. */
static int fill(struct image *i, struct run *r, bool *is_late)
{
	r->shared = shared_get(i, r->first, r->pages, r->buffer, is_late);
	if (r->shared && !image_is_cached(i))
		r->shared = 0;
	int err = read_rest(i, r);
	if (err)
		return err;
	if (image_is_cached(i))
		keep(i, r);
	file_forget(&i->file, r->first, r->pages);
	return 0;
}

/* At most RUN_PAGES pages, `asked` of which were not cached a moment ago, and the others follow them
 * unasked.  Somebody may have filled them until the mark was there. */
static int fill_run(struct image *i, struct wanted *w, uint64_t first, uint32_t asked,
		    uint32_t pages)
{
	uint8_t *buffer = buffer_of_thread();
	struct mark mark;
	uint32_t run = 0;
	int err = buffer ? 0 : -ENOMEM;

	if (err)
		return err;
	marks_take(&i->marks, &mark, first, pages, true);
	for (uint32_t n = 0; !err && n <= pages; n++) {
		bool missing = n < pages && !cache_get(i, first + n, buffer + n * PAGE_BYTES);
		if (n < asked)
			count_up(missing ? &i->count.misses : &i->count.hits);
		if (missing) {
			run++;
		} else if (run) {
			uint32_t from = n - run;
			uint32_t wanted = asked > from ? (uint32_t)min_of(asked - from, run) : 0;
			struct run r = {first + from, wanted, run, buffer + from * PAGE_BYTES, 0};
			err = fill(i, &r, &w->is_late);
			run = 0;
		}
	}
	marks_drop(&i->marks, &mark);
	if (!err)
		hand_over(w, first, asked, buffer);
	return err;
}

/* How many pages behind a run are filled with it: those that may be cached when they are read next. */
static uint32_t more(struct image *i, uint64_t end, uint32_t run, uint32_t ahead)
{
	uint64_t most = min_of(min_of(ahead, RUN_PAGES - run), file_pages(&i->file) - end);
	uint32_t pages = 0;

	while (pages < most && admission_knows(&i->admission, end + pages))
		pages++;
	return pages;
}

static int read_cached(struct image *i, struct wanted *w, uint32_t ahead)
{
	uint64_t first = w->offset / PAGE_BYTES, end = (w->end + PAGE_BYTES - 1) / PAGE_BYTES;
	uint32_t run = 0;
	int err = 0;

	for (uint64_t page = first; !err && page <= end; page++) {
		bool missing = page < end && !get(i, w, page);
		run += missing;
		if (page < end && !missing)
			count_up(&i->count.hits);
		if (!run || (missing && run < RUN_PAGES && page + 1 < end))
			continue;
		uint64_t next = missing ? page + 1 : page;
		uint32_t also = next == end ? more(i, end, run, ahead) : 0;
		err = fill_run(i, w, next - run, run, run + also);
		run = 0;
	}
	return err;
}

int reads_read(struct image *i, uint8_t *to, uint64_t count, uint64_t offset, uint32_t ahead)
{
	struct wanted w = {to, offset, offset + count, false};

	if (!count)
		return 0;
	count_add(&i->count.reads, (w.end + PAGE_BYTES - 1) / PAGE_BYTES - offset / PAGE_BYTES);
	return image_is_cached(i) ? read_cached(i, &w, ahead) : read_past_cache(i, &w);
}
