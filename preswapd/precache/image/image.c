/* SPDX-License-Identifier: BSD-3-Clause */
#include "image.h"

void image_init(struct image *i)
{
	*i = (struct image){.pool = NO_POOL};
	file_init(&i->file);
	admission_init(&i->admission);
	marks_init(&i->marks);
	flights_init(&i->flights);
}

void image_destroy(struct image *i)
{
	file_destroy(&i->file);
	admission_destroy(&i->admission);
	marks_destroy(&i->marks);
	flights_destroy(&i->flights);
}

void image_believe(struct image *i, uint32_t pool, const struct identity *identity)
{
	i->pool = pool;
	i->believed = *identity;
	i->share = NULL;
	__atomic_store_n(&i->is_believed, pool != NO_POOL, __ATOMIC_RELEASE);
}

void image_share(struct image *i, const struct share_ops *ops, struct share *share)
{
	i->share_ops = ops;
	__atomic_store_n(&i->share, share, __ATOMIC_RELEASE);
}

bool image_is_cached(struct image *i)
{
	struct identity now;

	if (!__atomic_load_n(&i->is_believed, __ATOMIC_ACQUIRE))
		return false;
	if (!file_look(&i->file, &now) && identity_is(&now, &i->believed))
		return true;
	__atomic_store_n(&i->is_believed, false, __ATOMIC_RELEASE);
	return false;
}

int image_read_file(struct image *i, uint64_t first, uint32_t pages, uint8_t *buffer)
{
	int err = file_read(&i->file, first, pages, buffer);

	if (err)
		return image_file_error(i, err);
	count_add(&i->count.disk_reads, pages);
	return 0;
}

int image_file_error(struct image *i, int err)
{
	count_up(&i->count.disk_errors);
	__atomic_store_n(&i->last_error, -err, __ATOMIC_RELAXED);
	return err;
}
