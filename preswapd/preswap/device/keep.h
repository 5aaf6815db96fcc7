/* SPDX-License-Identifier: BSD-3-Clause */
/* A page takes the place of what was noted of it, unless something came between. */
#ifndef PRESWAPD_KEEP_H
#define PRESWAPD_KEEP_H

#include "places.h"

/* In tmem.  0: stored.  1: rejected.  -ESTALE: the page changed meanwhile. */
int keep_in_tmem(struct device *, uint64_t page, const struct noted *, const uint8_t *from);
/* On disk, under its mark alone; `from` is aligned.  0, -ESTALE, or an error of the disk. */
int keep_on_disk(struct device *, uint64_t page, const struct noted *, const uint8_t *from,
		 bool sync);

#endif
