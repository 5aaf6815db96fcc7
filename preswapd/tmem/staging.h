/* SPDX-License-Identifier: BSD-3-Clause */
/* Slabs of staged pages: whole pages that were put as they are and are to be compressed. */
#ifndef PRESWAPD_STAGING_H
#define PRESWAPD_STAGING_H

#include "slots.h"

bool staging_is_on(const struct slabs *);
void staging_set(struct slabs *, bool on);
/* Slabs of staged pages. */
uint32_t staging_slabs(struct slabs *);
/* Is so much staged that staging will soon have to stop? */
bool staging_presses(struct slabs *);
/* Waits for staged pages, for `milliseconds` at most, and then for a slab of them without a free
 * slot, for `for_more` milliseconds at most.  Returns whether there is such a slab. */
bool staging_wait(struct slabs *, unsigned milliseconds, unsigned for_more);

/* Takes the oldest slab without a free slot, or where `also_open` one with some, for its pages to be
 * compressed.  It is out of reach of allocation until it is returned.  0: there is none. */
uint32_t staging_take(struct slabs *, bool also_open);
/* What is still in it has been `tried` and stays as it is. */
void staging_return(struct slabs *, uint32_t slab, bool tried);

#endif
