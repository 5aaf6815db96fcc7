/* SPDX-License-Identifier: BSD-3-Clause */
/* Repair of a disk file that somebody cut off. */
#ifndef PRESWAPD_MEND_H
#define PRESWAPD_MEND_H

#include "device.h"

/* Pages behind the end of a disk file that was cut off become lost, then the file gets its length
 * back.  Returns how many pages; -ENOENT: the file is whole. */
int64_t mend_disk(struct device *);

#endif
