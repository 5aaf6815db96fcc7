/* SPDX-License-Identifier: BSD-3-Clause */
/* Which versions the store is believed to have, as far as that can be said without a list of them.
 *
 * A version is drawn for each page that is set, from one counter, and never twice.  Each device knows the
 * version of each of its pages; here is only how many of them are alive, in buckets of versions one after
 * another.  As they only grow, what is older is what is smaller: where all have too many bytes, or
 * the oldest are too old, the oldest bucket goes, which is one store: the floor rises, and what is below it is
 * no version any more, in whatever device.  So nothing ever looks for the pages of a bucket.
 *
 * A version that is given up, or falls below the floor, is to be deleted in the store: a ring of them, which
 * forgets what does not fit.  The store forgets it too, in time.
 */
#ifndef PRESWAPD_VERSIONS_H
#define PRESWAPD_VERSIONS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "remote.h"

#define BUCKET_BITS 12u
#define BUCKET_VERSIONS (1u << BUCKET_BITS)
#define BUCKETS 65536u                 /* 2^28 versions; what is older goes */
#define GONE_MOST 16384u

struct bucket {
	uint64_t pages, bytes;         /* alive; atomic */
	uint64_t begun, last;          /* ns: its first version was drawn, and its last */
	uint64_t end;                  /* behind the last that was drawn */
};

struct versions {
	pthread_mutex_t mutex;         /* what follows, where it is not atomic */
	uint64_t next;                 /* the next version to be drawn; atomic */
	uint64_t floor;                /* versions below it are none; the first of a bucket; atomic */
	uint64_t most_bytes;           /* 0: any */
	uint64_t most_age;             /* ns */
	struct bucket *buckets;        /* a ring, zeros until it is touched */
	uint64_t gone[GONE_MOST];      /* a first version and how many, as a word; atomic */
	uint64_t gone_in, gone_out;    /* atomic; read by one thread at a time */
};

static inline uint64_t version_of(uint64_t word)
{
	return word >> REMOTE_LENGTH_BITS;
}

static inline uint64_t version_word(uint64_t version, uint64_t length)
{
	return version << REMOTE_LENGTH_BITS | length;
}

static inline uint64_t version_bytes(uint64_t word)
{
	return word & ((1u << REMOTE_LENGTH_BITS) - 1);
}

static inline bool version_is_alive(const struct versions *v, uint64_t word)
{
	return version_of(word) >= __atomic_load_n(&v->floor, __ATOMIC_ACQUIRE);
}

/* -ENOMEM. */
int versions_init(struct versions *);
void versions_destroy(struct versions *);
void versions_set_most(struct versions *, uint64_t bytes, uint64_t ns);

/* A new version.  Others may fall below the floor for it. */
uint64_t versions_draw(struct versions *, uint64_t now);
/* It is a page's now: false, it has fallen below the floor meanwhile. */
bool versions_note(struct versions *, uint64_t word);
/* It is no page's any more.  It may still be stored: then it is to be deleted.  Without a lock. */
void versions_forget(struct versions *, uint64_t word, bool may_be_stored);
/* What is too old, or too much, goes. */
void versions_tick(struct versions *, uint64_t now);
/* How many are alive. */
void versions_alive(struct versions *, uint64_t *pages, uint64_t *bytes);

/* Takes versions that are to be deleted, for one thread at a time: a first one and how many.  False: none. */
bool versions_next_gone(struct versions *, uint64_t *first, unsigned *n);
/* Some of what was taken, for the next time. */
void versions_return_gone(struct versions *, uint64_t first, unsigned n);

#endif
