/* SPDX-License-Identifier: BSD-3-Clause */
/* Disk space goes back where no page is on disk any more (rule R4). */
#ifndef PRESWAPD_PUNCH_H
#define PRESWAPD_PUNCH_H

#include "device.h"

/* Holes of the disk file where a trim left blocks behind; all: wherever no page is on disk. */
int punch_range(struct device *, uint64_t first, uint64_t pages, bool all);
/* Punches the next blocks of the disk file, from page `*at` on and `most` pages at most, where no
 * page is on disk, and moves `*at` behind them: to d->pages when there are no more. */
int punch_unused(struct device *, uint64_t *at, uint64_t most);

#endif
