/* SPDX-License-Identifier: BSD-3-Clause */
#include "punch.h"

#include "places.h"

static uint8_t to_punch_byte(const struct device *d, uint64_t page)
{
	return __atomic_load_n(&d->to_punch[page / 8], __ATOMIC_RELAXED);
}

static bool is_to_punch(const struct device *d, uint64_t page)
{
	return to_punch_byte(d, page) >> page % 8 & 1;
}

/* Pages that are not on disk, under their mark.  What fails is tried again. */
static int punch_marked(struct device *d, uint64_t first, uint64_t pages)
{
	int err = disk_punch(&d->disk, first, pages);

	if (!err) {
		count_add(&d->count.punched_pages, pages);
		return 0;
	}
	for (uint64_t page = first; page < first + pages; page++)
		place_to_punch(d, page);
	return device_disk_error(d, err);
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
			place_punched(d, first + i);
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

int punch_range(struct device *d, uint64_t first, uint64_t pages, bool all)
{
	uint64_t run = 0, end = first + pages;

	for (uint64_t page = first; page <= end; page++) {
		/* Eight pages at a glance: most of a large device has nothing to punch. */
		if (!all && !run && page % 8 == 0 && page + 8 <= end &&
		    to_punch_byte(d, page) == 0) {
			page += 7;
			continue;
		}
		bool wanted = page < end && (all ? device_state(d, page) != DISK :
						   is_to_punch(d, page));
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

int punch_unused(struct device *d, uint64_t *at, uint64_t most)
{
	uint64_t pages;
	int err = disk_next_written(&d->disk, at, &pages);

	if (err)
		return device_disk_error(d, err);
	if (pages > most)
		pages = most;
	err = punch_range(d, *at, pages, true);
	*at += pages;
	return err;
}
