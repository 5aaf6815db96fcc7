/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk file was cut off underneath. */
#ifndef PRESWAPD_MEND_H
#define PRESWAPD_MEND_H

#include "device.h"

/* What lay behind the end of a disk file that was cut off is lost, and the file as long as it
 * was: how many pages, -ENOENT where it is whole. */
int64_t mend_disk(struct device *);

#endif
