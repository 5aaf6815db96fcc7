/* SPDX-License-Identifier: BSD-3-Clause */
#include "device.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "copies.h"
#include "places.h"

static size_t bitmap_bytes(const struct device *d)
{
	return (d->pages + 7) / 8;
}

/* A byte a page, in whole pages of memory. */
static size_t map_bytes(const struct device *d)
{
	return (d->pages + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

/* A byte a page for its weight, two for its epoch, and the reads that the sampler has looked at. */
static size_t uses_bytes(const struct device *d)
{
	return 3 * map_bytes(d) + sizeof *d->sampled;
}

int device_map(struct device *d, int map_fd)
{
	void *map = mmap(NULL, map_bytes(d), PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);

	if (map == MAP_FAILED)
		return -ENOMEM;
	d->map = map;
	d->shadowed = calloc(4, bitmap_bytes(d));      /* one piece of memory for all */
	if (!d->shadowed)
		return -ENOMEM;
	d->to_punch = d->shadowed + bitmap_bytes(d);
	d->left[0] = d->to_punch + bitmap_bytes(d);
	d->left[1] = d->left[0] + bitmap_bytes(d);
	/* Zeros that take memory only where they are written: weights, while pages have to go. */
	void *uses = mmap(NULL, uses_bytes(d), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	if (uses == MAP_FAILED)
		return -ENOMEM;
	d->weights = uses;
	d->touched = (uint16_t *)(d->weights + map_bytes(d));
	d->sampled = (struct sampled *)(d->weights + 3 * map_bytes(d));
	return 0;
}

void device_release(struct device *d)
{
	if (d->map)
		munmap(d->map, map_bytes(d));
	if (d->weights)
		munmap(d->weights, uses_bytes(d));
	free(d->shadowed);
	copies_release(d);
	if (d->disk.fd >= 0)
		close(d->disk.fd);
	d->map = d->shadowed = d->to_punch = d->left[0] = d->left[1] = d->weights = NULL;
	d->touched = NULL;
	d->sampled = NULL;
	d->disk.fd = -1;
}

size_t device_metadata_bytes(const struct device *d)
{
	return map_bytes(d) + 5 * bitmap_bytes(d) + uses_bytes(d) + copies_bytes(d);
}

struct attaching {
	struct device *device;
	uint64_t object, next_seq;
};

/* Which page was touched last, nobody knows any more: which was put last, its sequence number says. */
static void attach_slot(void *ctx, uint32_t index, uint32_t ref)
{
	struct attaching *a = ctx;
	struct device *d = a->device;
	uint64_t page = swizzle_page(a->object, index);

	place_found_in_tmem(d, page);
	d->touched[page] = epochs_restored(a->next_seq - d->tmem->slot_seq(d->host, ref));
}

static bool is_damaged(const struct device *d, uint64_t page)
{
	switch (device_state(d, page)) {
	case HOLE:
	case DISK:
	case LOST:
	case UNKNOWN:
	case PENDING:
		return false;
	case TMEM:
		return !(d->in_tmem[page / 8] >> page % 8 & 1);
	default:
		return true;
	}
}

/* A live slot beats P (R2); TMEM without a slot, or a byte that is none of the six, is damage. */
void device_attach(struct device *d)
{
	for (uint64_t page = 0; page < d->pages; page++)
		if (device_state(d, page) != HOLE)
			place_found(d, page);
	for (uint64_t object = 0; object < SWIZZLE_OBJECTS; object++) {
		struct attaching a = {d, object, d->tmem->next_seq(d->host)};
		struct tmem_handle handle = device_handle(d, object);
		d->tmem->visit(d->host, &handle, attach_slot, &a);
	}
	for (uint64_t page = 0; page < d->pages; page++)
		if (is_damaged(d, page))
			place_found_lost(d, page);
}

/* What is read and written in the zone says nothing about the guest's memory. */
void device_sample(struct device *d, uint64_t page, bool is_read)
{
	if (!zone_has(&d->zone, page))
		sampler_note(d->sampler, d->sampled, sampler_key(d->type, page), is_read);
}

static void forget_index(struct device *d)
{
	for (uint64_t object = 0; object < SWIZZLE_OBJECTS; object++) {
		struct tmem_handle handle = device_handle(d, object);
		d->tmem->forget_index(d->host, &handle);
	}
}

int device_reserve_index(struct device *d)
{
	for (uint64_t object = 0; object < SWIZZLE_OBJECTS; object++) {
		struct tmem_handle handle = device_handle(d, object);
		int err = d->tmem->reserve_index(d->host, &handle, swizzle_index(d->pages - 1));
		if (err) {
			forget_index(d);
			return err;
		}
	}
	return 0;
}

int device_empty(struct device *d)
{
	if (!flights_are_closed(&d->flights))
		return -EBUSY;
	device_drop(d, 0, d->pages, HOLE);
	forget_index(d);
	return 0;
}

/* What is it already is passed over without its lock: a put in flight there is then the later of the two. */
void device_drop(struct device *d, uint64_t first, uint64_t pages, enum page_state state)
{
	for (uint64_t page = first; page < first + pages; page++) {
		if (device_state(d, page) == state)
			continue;
		bool was_in_tmem = place_become(d, page, state);
		if (sampler_chooses(d->sampler, sampler_key(d->type, page)))
			sampler_drop(d->sampler, sampler_key(d->type, page));
		d->tmem->count_flush(d->host, was_in_tmem);
		if (was_in_tmem)
			count_up(&d->count.invalidates);
	}
}

void device_settle_pending(struct device *d, uint64_t first, uint64_t pages, enum page_state state)
{
	static const struct noted pending = {.state = PENDING};

	for (uint64_t page = first; page < first + pages; page++)
		if (device_state(d, page) == PENDING)
			place_change(d, page, &pending, zone_has(&d->zone, page) ? DISK : state);
}

void device_renew(struct device *d, enum page_state state)
{
	for (uint64_t page = 0, n; page < d->pages; page += n) {
		n = zone_run(&d->zone, page, d->pages - page);
		if (!zone_has(&d->zone, page)) {
			device_drop(d, page, n, state);
			continue;
		}
		for (uint64_t i = page; i < page + n; i++)
			place_become(d, i, state == PENDING ? PENDING : DISK);
	}
}

uint64_t device_make_known(struct device *d, uint64_t first, uint64_t pages)
{
	static const struct noted unknown = {.state = UNKNOWN};
	uint64_t made = 0;

	for (uint64_t page = first; page < first + pages; page++)
		if (device_state(d, page) == UNKNOWN)
			made += place_change(d, page, &unknown, HOLE);
	return made;
}

void device_settle(struct device *d, uint64_t first, uint64_t pages)
{
	enum tmem_compress compress = device_compress(d);

	for (uint64_t page = first; page < first + pages && compress != TMEM_NONE; page++) {
		struct tmem_handle handle = device_handle(d, page);
		if (device_state(d, page) == TMEM)
			d->tmem->settle(d->host, &handle, compress);
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

int device_mark(struct device *d)
{
	int err = device_is_marked(d) ? 0 : d->mark(d->owner);

	return err ? device_disk_error(d, err) : 0;
}

int device_change(struct device *d)
{
	int err = device_guest(d) == GUEST_COMING ? d->take(d->owner) : 0;

	return err ? as_nbd_has_it(err) : device_mark(d);
}

int device_disk_error(struct device *d, int err)
{
	count_up(&d->count.disk_errors);
	__atomic_store_n(&d->last_error, -err, __ATOMIC_RELAXED);
	return as_nbd_has_it(err);
}
