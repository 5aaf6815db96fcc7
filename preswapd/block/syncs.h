/* SPDX-License-Identifier: BSD-3-Clause */
/* A file's syncs, one at a time: of two at once that fail the kernel tells only one.
 *
 * After one that failed it takes the pages that it could not write for clean, so that the next one would
 * succeed: in a file that is not opened past its page cache every later sync fails too.  Past it nothing
 * is lost by a sync that failed, and it may be tried again. */
#ifndef PRESWAPD_SYNCS_H
#define PRESWAPD_SYNCS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct syncs {
	pthread_mutex_t mutex;         /* held by the one that syncs */
	uint64_t begun;                /* atomic */
	uint64_t done;                 /* the newest one that succeeded; under the mutex */
	int error;                     /* of one whose writes are lost for good, or 0; under the mutex */
};

void syncs_init(struct syncs *);
void syncs_destroy(struct syncs *);
/* All that was written before is on disk (fdatasync): 0 or a negative errno.  Of those that wait the first
 * one syncs for all. */
int syncs_data(struct syncs *, int fd, bool is_direct);
/* The file's times too (fsync). */
int syncs_all(struct syncs *, int fd, bool is_direct);

#endif
