/* SPDX-License-Identifier: BSD-3-Clause */
#include "keep.h"

#include "copies.h"

int keep_in_tmem(struct device *d, uint64_t page, const struct noted *noted, const uint8_t *from)
{
	struct tmem_handle handle = device_handle(d, page);
	struct tmem_fresh fresh;
	uint32_t old = 0;

	if (!noted->slot.ref && device_over_quota(d))
		return 1;
	if (d->tmem->build(d->host, &handle, from, device_compress(d),
			   noted->slot.ref ? TMEM_REPLACE : 0, &fresh))
		return 1;
	d->tmem->lock(d->host, &handle);
	int err = !place_is(d, page, &handle, noted) ? -ESTALE :
		  place_publish(d, page, &handle, &fresh, &old) ? 1 : 0;
	d->tmem->unlock(d->host, &handle);
	if (err) {
		d->tmem->abandon(d->host, &fresh);
		return err;
	}
	device_touch(d, page, false);
	d->tmem->release(d->host, old);
	count_up(&d->count.succ_stores);
	return 0;
}

int keep_on_disk(struct device *d, uint64_t page, const struct noted *noted, const uint8_t *from,
		 bool sync)
{
	/* A write that fails leaves either page there, or a piece of each. */
	copies_forget(d, page);
	int err = disk_write(&d->disk, page, 1, from);

	if (!err && sync)
		err = disk_sync(&d->disk);
	if (err)
		return device_disk_error(d, err);
	count_up(&d->count.disk_writes);
	device_touch(d, page, false);
	return place_change(d, page, noted, DISK) ? 0 : -ESTALE;
}
