/* SPDX-License-Identifier: BSD-3-Clause */
/* What a guest asks of its device.  Whole pages go page by page to tmem, what it does not take in
 * runs to the disk; ragged ends are read-modify-write.  Requests are atomic for each page, not
 * across pages. */
#ifndef PRESWAPD_REQUESTS_H
#define PRESWAPD_REQUESTS_H

#include "device.h"

/* How far a read or write got; zeros at first.  -EAGAIN, only under REQUEST_NOWAIT: it would have
 * to wait; called again without that flag, it goes on from here. */
struct progress {
	uint64_t done;                 /* bytes that are read or stored, and none behind them */
	bool rejected;                 /* tmem rejected the next page: it is for the disk */
};

int request_read(struct device *, void *to, uint64_t count, uint64_t offset, unsigned flags,
		 struct progress *);
int request_write(struct device *, const void *from, uint64_t count, uint64_t offset,
		  unsigned flags, struct progress *);
int request_trim(struct device *, uint64_t count, uint64_t offset, unsigned flags);
int request_zero(struct device *, uint64_t count, uint64_t offset, unsigned flags);
int request_flush(struct device *);

/* From `offset` on, `most` extents at most; returns how many. */
size_t request_extents(const struct device *, uint64_t count, uint64_t offset, struct nbd_extent *,
		       size_t most);

#endif
