/* SPDX-License-Identifier: BSD-3-Clause */
/* What is cached of an image: its pages by their numbers.  In flight only, as the pool may change. */
#ifndef PRESWAPD_CACHE_H
#define PRESWAPD_CACHE_H

#include "image.h"

/* Whether the page was there; `to` is filled then. */
bool cache_get(struct image *, uint64_t page, uint8_t *to);
/* It may be rejected; then nothing is cached of the page. */
void cache_put(struct image *, uint64_t page, const uint8_t *from);
/* Whether the page was there. */
bool cache_drop(struct image *, uint64_t page);
void cache_drop_all(struct image *);

#endif
