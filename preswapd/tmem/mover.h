/* SPDX-License-Identifier: BSD-3-Clause */
/* Pages move to other slots, see mover.c. */
#ifndef PRESWAPD_MOVER_H
#define PRESWAPD_MOVER_H

#include "parts.h"

/* Moves pages out of the emptiest slabs while the memory held is sparse, or over the limit: for
 * some 10 ms, or to the end when `all`. */
void mover_compact(struct tmem_host *, bool all);
/* Moves pages out of a few slabs, where more than a twentieth of the memory held is holes; whether a slab
 * fell empty by that. */
bool mover_pack(struct tmem_host *);
/* Compresses a slab of staged pages.  0: there is none; 1: it is no longer staged; -EAGAIN
 * when something in it has to wait, -ENOSPC when there is no room for a copy. */
int mover_settle(struct tmem_host *, bool also_open);
/* As in struct tmem_ops. */
void mover_settle_page(struct tmem_host *, const struct tmem_handle *, enum tmem_compress);
int mover_recompress(struct tmem_host *, const struct tmem_handle *, enum tmem_compress);

#endif
