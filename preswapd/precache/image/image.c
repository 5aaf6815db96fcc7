/* SPDX-License-Identifier: BSD-3-Clause */
#include "image.h"

void image_init(struct image *i)
{
	*i = (struct image){.file.fd = -1, .pool = NO_POOL};
	marks_init(&i->marks);
	flights_init(&i->flights);
}

void image_destroy(struct image *i)
{
	marks_destroy(&i->marks);
	flights_destroy(&i->flights);
}

void image_believe(struct image *i, uint32_t pool, const struct identity *identity)
{
	i->pool = pool;
	i->believed = *identity;
	__atomic_store_n(&i->is_believed, pool != NO_POOL, __ATOMIC_RELEASE);
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

int image_file_error(struct image *i, int err)
{
	count_up(&i->count.disk_errors);
	__atomic_store_n(&i->last_error, -err, __ATOMIC_RELAXED);
	return err;
}
