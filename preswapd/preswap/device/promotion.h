/* SPDX-License-Identifier: BSD-3-Clause */
/* A page that is read from disk comes back into tmem, where it is worth its room. */
#ifndef PRESWAPD_PROMOTION_H
#define PRESWAPD_PROMOTION_H

#include "device.h"

/* Of device.promoted_below: every page that is read comes back, if there is room.  0: none does. */
#define PROMOTE_ALL UINT64_MAX

/* Takes the page into tmem again, or leaves it on disk alone.  Under the mark, shared, that it was read
 * under, and before it is touched: its age is the one that it had until now. */
void promotion_consider(struct device *, uint64_t page, const uint8_t *from);

#endif
