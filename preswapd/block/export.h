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
	REQUEST_MAY_TRIM = 8,          /* a zero request that may give blocks back */
};

/* An answer of its own: a file system may give any errno.  Nothing was done, as a newer connection has
 * changed something; this one is to be dropped without an answer, see flights.h. */
enum { SUPERSEDED = 4096 };

/* What NBD calls an extent: a run of holes, or of what may be something else than zeros. */
struct nbd_extent {
	uint64_t offset, length;       /* bytes */
	bool hole;
};

#endif
