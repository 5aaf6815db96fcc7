/* Disk space goes back where no page is on disk any more (rule R4). */
#ifndef PRESWAPD_PUNCH_H
#define PRESWAPD_PUNCH_H

#include "device.h"

/* Holes of the disk file where a trim left blocks behind; all: wherever no page is on disk. */
int punch_range(struct device *, uint64_t first, uint64_t pages, bool all);
/* The blocks of no use that the disk file has from `*at` on, which grows by `most` pages or more;
 * to be called again until it is d->pages. */
int punch_unused(struct device *, uint64_t *at, uint64_t most);

#endif
