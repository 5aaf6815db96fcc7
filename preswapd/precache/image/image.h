/* SPDX-License-Identifier: BSD-3-Clause */
/* One disk image: its file, and what is cached of it in an ephemeral pool.
 *
 * What is cached is believed while the file is what it was when the pool was made (docs/precache.md).
 * Functions return 0 or a negative errno; none needs the GIL.
 */
#ifndef PRESWAPD_IMAGE_H
#define PRESWAPD_IMAGE_H

#include "admission.h"
#include "file.h"
#include "flights.h"
#include "latency.h"
#include "marks.h"
#include "remote.h"
#include "stores.h"
#include "tmem.h"

/* Pages that are read from the file in one transfer: a thread's buffer may grow to that. */
#define RUN_PAGES 64u
#define NO_POOL UINT32_MAX

struct image_counters {
	uint64_t reads, hits, misses, puts, writes;    /* pages */
	uint64_t disk_reads, disk_writes, disk_errors; /* pages; events */
	uint64_t read_requests, write_requests;
	uint64_t remote_sets, remote_sets_dropped;     /* pages */
};

struct image {
	const struct tmem_ops *tmem;
	struct tmem_host *host;
	struct file file;
	enum tmem_compress compress;
	struct identity believed;
	uint32_t pool;                 /* or NO_POOL.  These two change while the image is parked only */
	bool is_believed;              /* false from the first look on that finds another file; atomic */
	/* What other hosts share of it, NULL: nothing.  It becomes another while the image is parked only; atomic */
	struct share *share;
	const struct share_ops *share_ops;
	struct admission admission;
	struct marks marks;
	struct flights flights;
	int last_error;                /* of the file, positive errno; atomic */
	struct image_counters count;   /* atomic */
	struct remote_counters remote;
	struct latency read_latency, write_latency;
};

void image_init(struct image *);
void image_destroy(struct image *);
/* While it is parked: what is cached from now on, and as long as the file is this.  Nothing is shared then. */
void image_believe(struct image *, uint32_t pool, const struct identity *);
/* Of the file that is believed now: its pages are shared, until another one is. */
void image_share(struct image *, const struct share_ops *, struct share *);
/* In flight: whether it may be cached.  Looks at the file. */
bool image_is_cached(struct image *);
int image_read_file(struct image *, uint64_t first, uint32_t pages, uint8_t *buffer);
/* Counts and notes what the file failed with; returns the error for the client. */
int image_file_error(struct image *, int err);

#endif
