/* SPDX-License-Identifier: BSD-3-Clause */
/* The words in which a client's request reaches an export. */
#ifndef PRESWAPD_EXPORT_H
#define PRESWAPD_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

enum request_flags {
	REQUEST_FUA = 1,
	REQUEST_NOWAIT = 2,            /* -EAGAIN rather than wait */
	REQUEST_FAST_ZERO = 4,         /* a zero request that must not take disk transfers */
};

/* What NBD calls an extent: a run of holes, or of what may be something else than zeros. */
struct nbd_extent {
	uint64_t offset, length;       /* bytes */
	bool hole;
};

#endif
