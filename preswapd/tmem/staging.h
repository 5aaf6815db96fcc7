/* SPDX-License-Identifier: BSD-3-Clause */
/* Slabs of staged pages: whole pages that were put as they are and are to be compressed. */
#ifndef PRESWAPD_STAGING_H
#define PRESWAPD_STAGING_H

#include "slots.h"

bool staging_is_on(const struct slabs *);
void staging_set(struct slabs *, bool on);
/* Slabs of staged pages. */
uint32_t staging_slabs(struct slabs *);
/* Is so much staged that it will soon have to stop? */
bool staging_presses(struct slabs *);
/* Waits so long for staged pages, then for a slab of them to be without a free slot: whether one
 * is. */
bool staging_wait(struct slabs *, unsigned milliseconds, unsigned for_more);

/* For whoever compresses: the oldest slab without a free slot, or `also_open` with some, out of
 * reach of allocation until it is returned; 0 when there is none. */
uint32_t staging_take(struct slabs *, bool also_open);
/* What is still in it has been `tried` and stays as it is. */
void staging_return(struct slabs *, uint32_t slab, bool tried);

#endif
