/* SPDX-License-Identifier: BSD-3-Clause */
/* What a guest asks of its device.  Whole pages go page by page to tmem, what it does not take in
 * runs to the disk; ragged ends are read-modify-write.  Requests are atomic for each page, not
 * across pages. */
#ifndef PRESWAPD_REQUESTS_H
#define PRESWAPD_REQUESTS_H

#include "device.h"

/* How far a read or write got; zeros at first.  -EAGAIN, only under REQUEST_NOWAIT: it would have
 * to wait, and is to be asked again without that, to go on from here. */
struct progress {
	uint64_t done;                 /* bytes, all there or stored, and none of the others */
	bool rejected;                 /* by tmem, the page behind them: it is for the disk */
};

int request_read(struct device *, void *to, uint64_t count, uint64_t offset, unsigned flags,
		 struct progress *);
int request_write(struct device *, const void *from, uint64_t count, uint64_t offset,
		  unsigned flags, struct progress *);
int request_trim(struct device *, uint64_t count, uint64_t offset, unsigned flags);
int request_zero(struct device *, uint64_t count, uint64_t offset, unsigned flags);
int request_flush(struct device *);

struct extent {
	uint64_t offset, length;       /* bytes */
	bool hole;
};
/* From `offset` on, at most `most` extents; returns how many. */
size_t request_extents(const struct device *, uint64_t count, uint64_t offset, struct extent *,
		       size_t most);

#endif
