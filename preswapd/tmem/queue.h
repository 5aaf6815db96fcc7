/* SPDX-License-Identifier: BSD-3-Clause */
/* The ephemeral pages of all pools, oldest put first: what goes when a put needs room.
 *
 * A queue of handles, not of slots, because the mover changes slots.  An entry is stale when its
 * page was flushed, evicted or put again since; its 24 bits of the sequence number tell, and where
 * they are equal by chance a page goes early, which an ephemeral page may at any time.  Stale
 * entries go when they come up, or are swept out.
 *
 * The queue is a list of blocks and not a ring: a ring is up to half empty, and 16 bytes a page
 * are all that a page's 56 bytes of metadata leave room for; and a sweep holds the mutex for one
 * block at a time (some 15 us), not for all of a million entries.
 *
 * It is one queue for all pools, and a pool whose own oldest is asked for has a cursor in it: no
 * entry of the pool is before that.  What one look has passed over no later one sees again, so that
 * each entry is walked over once for each such pool (docs/tmem.md says why not a queue for each).
 */
#ifndef PRESWAPD_QUEUE_H
#define PRESWAPD_QUEUE_H

#include <pthread.h>

#include "arena.h"
#include "headroom.h"
#include "tmem.h"

#define BLOCK_ENTRIES 254u             /* 4 KiB a block */
#define POOL_OF_NOBODY 0xffu           /* of an entry that was taken out of the middle */

struct queue_entry {
	uint64_t object;
	uint32_t index;
	uint32_t pool : 8, seq : 24;
};

struct queue_block {
	struct queue_block *next;
	uint32_t begin, end;           /* begin > 0 in the first block only; never empty */
	struct queue_entry entries[BLOCK_ENTRIES];
};

struct queue_cursor {
	struct queue_block *block;     /* NULL: the beginning */
	uint32_t at;
};

struct queue {
	pthread_mutex_t mutex;
	struct queue_block *first, *last;
	struct queue_block *swept; /* the last block that a sweep has filled up, or NULL */
	struct queue_cursor cursors[POOLS_MAX];
	uint64_t entries, bytes;       /* atomic */
	struct headroom *headroom;
};

typedef bool (*queue_keep)(void *ctx, const struct queue_entry *);

void queue_init(struct queue *, struct headroom *);
void queue_destroy(struct queue *);
/* Without a page's lock: the mutex is taken before those.  1 at every eighth entry, when a sweep
 * may be due; else 0, or -ENOMEM: the page is in no queue. */
int queue_append(struct queue *, const struct queue_entry *);
/* Takes the oldest entry out; false when there is none. */
bool queue_take(struct queue *, struct queue_entry *);
/* The oldest one of that pool. */
bool queue_take_of(struct queue *, uint32_t pool, struct queue_entry *);
/* Drops the entries of one block that `keep` does not want, and closes the gap; it may take a
 * page's lock.  The next call goes on with the next block; false: it was the last one. */
bool queue_sweep(struct queue *, queue_keep keep, void *ctx);

static inline struct queue_entry queue_entry_of(const struct tmem_handle *h, uint64_t seq)
{
	return (struct queue_entry){.object = h->object, .index = h->index,
				    .pool = h->pool & 0xffu, .seq = (uint32_t)seq & 0xffffffu};
}

#endif
