/* SPDX-License-Identifier: BSD-3-Clause */
/* Sparse slabs for the mover to empty, out of reach of allocation until they are returned.
 *
 * A slab is taken once in a round: one that cannot be emptied must not hold up the others. */
#ifndef PRESWAPD_VICTIMS_H
#define PRESWAPD_VICTIMS_H

#include "slabs.h"

/* Is less than that share of the held memory live data, so that it pays to move pages? */
bool victims_wanted(struct slabs *, unsigned percent);
uint32_t victims_new_round(struct slabs *);
/* At most `most`, the emptiest first; how many. */
uint32_t victims_take(struct slabs *, uint32_t round, uint32_t *slabs, uint32_t most);
/* Whether it is empty. */
bool victims_return(struct slabs *, uint32_t slab);

#endif
