#include "device.h"

#include <errno.h>

/* Counted before it is set, so that whoever clears it meanwhile never leaves less than nothing. */
static void set_bit(uint8_t *bits, uint64_t page, bool to, uint64_t *gauge)
{
	if (to)
		__atomic_fetch_add(gauge, 1, __ATOMIC_RELAXED);
	if (to ? device_set_bit(bits, page) : device_clear_bit(bits, page))
		__atomic_fetch_sub(gauge, 1, __ATOMIC_RELAXED);
}

void device_make_stale(struct device *d, uint64_t page)
{
	set_bit(d->stale, page, true, &d->stale_pages);
}

void device_wrote_in_vain(struct device *d, uint64_t page)
{
	uint8_t state = device_state(d, page);

	if (state == TMEM)
		device_set_bit(d->outdated, page);
	else if (state != DISK)
		device_make_stale(d, page);
}

/* A page that comes and goes keeps its place on disk: only when it is trimmed is that given up,
 * also if it was in tmem meanwhile. */
static void note_blocks(struct device *d, uint64_t page, uint8_t before, enum page_state state)
{
	if (before == DISK && state == TMEM)
		device_set_bit(d->outdated, page);
	else if (state == HOLE && (device_clear_bit(d->outdated, page) || before == DISK))
		device_make_stale(d, page);
	else if (state == DISK)
		device_clear_bit(d->outdated, page);
}

static void show(struct device *d, uint64_t page, enum page_state state)
{
	set_bit(d->in_tmem, page, state == TMEM, &d->count.preswap_pages);
	set_bit(d->on_disk, page, state == DISK, &d->count.disk_pages);
}

/* Nothing moves across this store, see store_release() in the arena. */
static void store_state(struct device *d, uint64_t page, enum page_state state)
{
	uint8_t before = device_state(d, page);

	__atomic_store_n(&d->map[page], (uint8_t)state, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (before == LOST && state != LOST)
		__atomic_fetch_sub(&d->count.lost_pages, 1, __ATOMIC_RELAXED);
	else if (before != LOST && state == LOST)
		__atomic_fetch_add(&d->count.lost_pages, 1, __ATOMIC_RELAXED);
	note_blocks(d, page, before, state);
}

uint32_t device_become(struct device *d, uint64_t page, const struct tmem_handle *handle,
		       enum page_state state)
{
	store_state(d, page, state);
	uint32_t dead = d->tmem->drop(d->host, handle);
	show(d, page, state);
	return dead;
}

int device_publish(struct device *d, uint64_t page, const struct tmem_handle *handle,
		   const struct tmem_fresh *fresh, uint32_t *old)
{
	int err = d->tmem->publish(d->host, handle, fresh, old);

	if (err)
		return err;
	if (!*old) {
		store_state(d, page, TMEM);
		show(d, page, TMEM);
	}
	return 0;
}

/* The slot is looked up again by drop(): one put meanwhile is older than this write or in flight
 * with it, and goes. */
void device_now_on_disk(struct device *d, uint64_t first, uint64_t pages)
{
	for (uint64_t page = first; page < first + pages; page++) {
		struct tmem_handle handle = device_handle(d, page);
		d->tmem->lock(d->host, &handle);
		uint32_t dead = device_become(d, page, &handle, DISK);
		d->tmem->unlock(d->host, &handle);
		d->tmem->release(d->host, dead);
	}
}

/* NBD has few errors, and for all others nbdkit tells the guest that its request was invalid. */
static int as_nbd_has_it(int err)
{
	switch (-err) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
	case EROFS:
	case EPERM:
	case ENOMEM:
		return err;
	default:
		return -EIO;
	}
}

int device_disk_failed(struct device *d, int err)
{
	device_count(&d->count.disk_errors, 1);
	__atomic_store_n(&d->last_error, -err, __ATOMIC_RELAXED);
	return as_nbd_has_it(err);
}

struct attaching {
	struct device *device;
	uint64_t object;
};

static void attach_slot(void *ctx, uint32_t index, uint64_t seq)
{
	struct attaching *a = ctx;
	uint64_t page = (uint64_t)index << 4 | a->object;

	(void)seq;
	if (device_state(a->device, page) != TMEM)
		store_state(a->device, page, TMEM);
	show(a->device, page, TMEM);
}

/* A live slot beats P (R2); TMEM without a slot, or a byte that is none of the four, is damage. */
void device_attach(struct device *d)
{
	for (uint64_t page = 0; page < d->pages; page++)
		if (device_state(d, page) == LOST)
			d->count.lost_pages++;
	for (uint64_t object = 0; object < 16; object++) {
		struct attaching a = {d, object};
		struct tmem_handle handle = device_handle(d, object);
		d->tmem->visit(d->host, &handle, attach_slot, &a);
	}
	for (uint64_t page = 0; page < d->pages; page++) {
		uint8_t state = device_state(d, page);
		if (state == HOLE || state == LOST)
			continue;
		if (state == DISK)
			show(d, page, DISK);
		else if (state != TMEM || !(d->in_tmem[page / 8] >> page % 8 & 1))
			store_state(d, page, LOST);
	}
}

void device_recompress(struct device *d, uint64_t first, uint64_t pages)
{
	enum tmem_compress how = device_codec(d);

	for (uint64_t page = first; page < first + pages && how != TMEM_NONE; page++) {
		struct tmem_handle handle = device_handle(d, page);
		if (device_state(d, page) == TMEM)
			d->tmem->recompress(d->host, &handle, how);
	}
}
