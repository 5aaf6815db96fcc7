/* SPDX-License-Identifier: BSD-3-Clause */
/* Several runs of pages go to a disk file at once. */
#ifndef PRESWAPD_RUNS_H
#define PRESWAPD_RUNS_H

#include <stddef.h>
#include <stdint.h>

#include "disk.h"

struct run {
	uint64_t first;                /* page of the disk file */
	uint32_t pages;
	const uint8_t *from;
	int err;                       /* 0, or a negative errno: it may be on disk in part */
};

/* All of them are written when this returns, but those with an `err`: one that fails, and those
 * that were not tried any more behind it, have the same. */
void runs_write(const struct disk *, struct run *runs, size_t number);

#endif
