/* SPDX-License-Identifier: BSD-3-Clause */
/* Busy marks: who is at work on which pages of the disk file (rule R4).
 *
 * A disk write or punch of a page holds its mark alone, disk reads share it.  A request takes its
 * whole range at once or waits, holding no other mark.  Memory work takes none and waits for
 * none.  There are as many marks as requests at work, some tens: a list will do.
 */
#ifndef PRESWAPD_MARKS_H
#define PRESWAPD_MARKS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct mark {
	struct mark *next;
	uint64_t first, end;           /* pages */
	bool alone;
};

struct marks {
	pthread_mutex_t mutex;
	pthread_cond_t dropped;
	struct mark *all;              /* oldest first, held or waited for */
};

void marks_init(struct marks *);
void marks_destroy(struct marks *);
/* The mark lives in the caller's frame until it is dropped. */
void marks_take(struct marks *, struct mark *, uint64_t first, uint64_t pages, bool alone);
void marks_drop(struct marks *, struct mark *);

#endif
