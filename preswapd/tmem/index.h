/* SPDX-License-Identifier: BSD-3-Clause */
/* The index: (pool, object, index) -> slot.  Private memory, rebuilt at start.
 *
 * Objects hang in 256 stripes, each with a lock: neighbouring objects have different stripes, so
 * the sixteen objects of a swap type never share one.  An object's pages are a radix tree whose
 * leaves are 256 refs of 4 bytes: 4.4 bytes a stored page where neighbours are stored too.
 */
#ifndef PRESWAPD_INDEX_H
#define PRESWAPD_INDEX_H

#include <pthread.h>

#include "headroom.h"
#include "tmem.h"

#define STRIPES 256u
#define LEAF_REFS 256u
#define BRANCH_LEAVES 256u
#define BRANCH_REFS (LEAF_REFS * BRANCH_LEAVES)

struct leaf {
	uint64_t got[LEAF_REFS / 64];   /* a bit for each page: see index_note_get() */
	uint32_t used;
	uint32_t refs[LEAF_REFS];
};

struct branch {
	uint32_t used;
	struct leaf *leaves[BRANCH_LEAVES];
};

struct object {
	struct object *next;
	uint64_t id;
	uint64_t pages;
	uint32_t pool;
	uint32_t n_branches;
	bool reserved;                 /* branches stay when the last page goes */
	struct branch **branches;
};

struct stripe {
	pthread_mutex_t mutex;
	struct object *objects;
};

struct index {
	struct stripe stripes[STRIPES];
	struct headroom *headroom;
	uint64_t bytes;                /* of memory; atomic */
};

void index_init(struct index *, struct headroom *);
void index_destroy(struct index *);

static inline struct stripe *stripe_of(struct index *x, const struct tmem_handle *h)
{
	return &x->stripes[(h->object + 37u * h->pool) % STRIPES];
}

/* All under the stripe's lock.  Refs are never 0. */
uint32_t index_get(struct index *, const struct tmem_handle *);
/* Makes room for index_set(): 0, or -ENOMEM. */
int index_prepare(struct index *, const struct tmem_handle *);
/* Room must have been made, unless there was a ref before. */
void index_set(struct index *, const struct tmem_handle *, uint32_t ref);
uint32_t index_clear(struct index *, const struct tmem_handle *);
/* The stored page was got, which a move of it does not change.  Whether it was since the last look. */
void index_note_get(struct index *, const struct tmem_handle *);
bool index_was_got(struct index *, const struct tmem_handle *);
int index_reserve(struct index *, const struct tmem_handle *, uint32_t last);
void index_forget(struct index *, const struct tmem_handle *);
/* The stored page at or after h->index: true, and h->index and *ref are set. */
bool index_next(struct index *, struct tmem_handle *, uint32_t *ref);

#endif
