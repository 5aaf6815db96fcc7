/* SPDX-License-Identifier: BSD-3-Clause */
/* Which pages of an image were read from its file lately: the second read of a page caches it.
 *
 * A bit for each page, or for several where the image is very large, in two generations: notes go into
 * the newer one, both are asked, and after a window of pages that were read from the file the older one is
 * forgotten.  So a read is remembered over one to two windows of other reads, however long those take.
 */
#ifndef PRESWAPD_ADMISSION_H
#define PRESWAPD_ADMISSION_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* 512 KiB each generation: exact in images of up to 16 GiB. */
#define ADMISSION_BITS_MOST (1u << 22)

struct admission {
	pthread_mutex_t mutex;
	uint64_t *notes[2];            /* the newer generation first; NULL: every page is admitted */
	uint64_t bits;                 /* of each: a power of two */
	uint64_t window, noted;        /* pages in a generation; in the newer one by now */
};

/* Every page is admitted at first. */
void admission_init(struct admission *);
void admission_destroy(struct admission *);
/* From now on at the second read.  -ENOMEM. */
int admission_begin(struct admission *, uint64_t pages, uint64_t window);

static inline bool admission_is_on(const struct admission *a)
{
	return a->notes[0] != NULL;
}

/* Of a page that a client reads, from the file: whether it may be cached.  Notes that it was read. */
bool admission_note(struct admission *, uint64_t page);
/* Of a page that nobody has asked for as yet: whether it could be, were it read now. */
bool admission_knows(struct admission *, uint64_t page);

#endif
