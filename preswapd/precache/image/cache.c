/* SPDX-License-Identifier: BSD-3-Clause */
#include "cache.h"

#include "swizzle.h"

/* An index has 32 bits, and a sparse file may have more pages than sixteen objects of so many: what a swap
 * device's type is goes on counting here. */
static uint32_t type_of(uint64_t page)
{
	return (uint32_t)(page >> (SWIZZLE_BITS + 32));
}

static struct tmem_handle handle_of(const struct image *i, uint64_t page)
{
	return (struct tmem_handle){.object = swizzle_object(type_of(page), page),
				    .index = swizzle_index(page), .pool = i->pool};
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
	uint32_t last = type_of(file_pages(&i->file) - 1);

	for (uint32_t type = 0; type <= last; type++)
		for (uint64_t page = 0; page < SWIZZLE_OBJECTS; page++)
			i->tmem->flush_object(i->host, i->pool, swizzle_object(type, page));
}
