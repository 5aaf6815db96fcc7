/* SPDX-License-Identifier: BSD-3-Clause */
#include "cache.h"

#include "swizzle.h"

static struct tmem_handle handle_of(const struct image *i, uint64_t page)
{
	return (struct tmem_handle){.object = swizzle_object(0, page), .index = swizzle_index(page),
				    .pool = i->pool};
}

/* A damaged page is none: the file has it. */
bool cache_get(struct image *i, uint64_t page, uint8_t *to)
{
	struct tmem_handle handle = handle_of(i, page);
	int found = i->tmem->get(i->host, &handle, to);

	if (found < 0)
		i->tmem->flush(i->host, &handle);
	return found == 1;
}

void cache_put(struct image *i, uint64_t page, const uint8_t *from)
{
	struct tmem_handle handle = handle_of(i, page);

	if (i->tmem->put(i->host, &handle, from, i->compress) == 1)
		count_up(&i->count.puts);
}

bool cache_drop(struct image *i, uint64_t page)
{
	struct tmem_handle handle = handle_of(i, page);

	return i->tmem->flush(i->host, &handle) == 1;
}

void cache_drop_all(struct image *i)
{
	for (uint64_t page = 0; page < SWIZZLE_OBJECTS; page++)
		i->tmem->flush_object(i->host, i->pool, swizzle_object(0, page));
}
