/* SPDX-License-Identifier: BSD-3-Clause */
#include "weights.h"

#include <sys/mman.h>

/* Its weight, 32, and all below it are step 1.  The shortest slot, of 64 bytes, has step 17 at the least
 * age, and the longest, of 4352, step 226 at the greatest. */
#define LIGHTEST (5u * 16u - 1u)

uint8_t weight_step(uint64_t weight)
{
	unsigned steps = log16_of(weight);

	if (steps <= LIGHTEST)
		return 1;
	steps -= LIGHTEST;
	return (uint8_t)(steps < WEIGHT_STEPS ? steps : WEIGHT_STEPS - 1);
}

uint64_t weight_least(uint8_t step)
{
	return log16_least(step + LIGHTEST);
}

struct weighing {
	struct device *device;
	uint64_t object;
	uint64_t *pages_of;
};

static void weigh(void *ctx, uint32_t index, uint32_t ref)
{
	struct weighing *w = ctx;
	struct device *d = w->device;
	uint64_t page = swizzle_page(w->object, index);
	uint8_t step = weight_step(weight_of(d, page, d->tmem->slot_bytes(d->host, ref)));

	d->weights[page] = step;
	w->pages_of[step]++;
}

void weights_forget(struct device *d, uint16_t since)
{
	d->weighed = since;
	/* Zeros again, and no memory where no page is. */
	madvise(d->weights, d->pages, MADV_DONTNEED);
}

void weights_take(struct device *d, uint64_t object, uint64_t pages_of[WEIGHT_STEPS])
{
	struct weighing w = {d, object, pages_of};
	struct tmem_handle handle = device_handle(d, object);

	d->tmem->visit(d->host, &handle, weigh, &w);
}
