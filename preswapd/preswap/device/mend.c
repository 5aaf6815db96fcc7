/* SPDX-License-Identifier: BSD-3-Clause */
#include "mend.h"

#include <errno.h>

#include "places.h"

/* Lost first, then longer: between the two its zeros would pass for pages. */
int64_t mend_disk(struct device *d)
{
	static const struct noted on_disk = {.state = DISK};
	struct mark mark;
	int64_t lost = 0;
	uint64_t size;

	if (!disk_is_cut_off(&d->disk, &size))
		return -ENOENT;
	int err = device_mark(d);
	if (err)
		return err;
	uint64_t first = size / PAGE_BYTES;
	marks_take(&d->marks, &mark, first, d->pages - first, true);
	for (uint64_t page = first; page < d->pages; page++)
		lost += place_change(d, page, &on_disk, LOST);
	err = disk_lengthen(&d->disk);
	marks_drop(&d->marks, &mark);
	return err ? device_disk_error(d, err) : lost;
}
