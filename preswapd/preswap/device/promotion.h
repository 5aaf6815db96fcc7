/* SPDX-License-Identifier: BSD-3-Clause */
/* A page that is read from disk comes back into tmem, where it is worth its room. */
#ifndef PRESWAPD_PROMOTION_H
#define PRESWAPD_PROMOTION_H

#include "device.h"

/* No page that is read comes back; or every one for which there is room. */
#define PROMOTE_NONE 0u
#define PROMOTE_ALL UINT64_MAX

/* Under the mark, shared, that it was read under, and before it is touched. */
void promotion_consider(struct device *, uint64_t page, const uint8_t *from);

#endif
