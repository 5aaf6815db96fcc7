/* The ephemeral pages of all pools, oldest put first: what goes when a put needs room.
 *
 * A queue of handles, not of slots, because the mover changes slots.  An entry is stale when its
 * page was flushed, evicted or put again since; its 24 bits of the sequence number tell, and where
 * they are equal by chance a page goes early, which an ephemeral page may at any time.  Stale
 * entries go when they come up, and are swept out when they are more than half.
 */
#ifndef PRESWAPD_EPHEMERAL_H
#define PRESWAPD_EPHEMERAL_H

#include <pthread.h>

#include "tmem.h"

struct ephemeral_entry {
	uint64_t object;
	uint32_t index;
	uint32_t pool : 8, seq : 24;
};

struct ephemeral {
	pthread_mutex_t mutex;
	struct ephemeral_entry *ring;
	uint64_t room, first, n;       /* room is a power of two */
};

void ephemeral_init(struct ephemeral *);
void ephemeral_destroy(struct ephemeral *);
/* Without a page's lock: the mutex is taken before those.  -ENOMEM: the page is in no queue. */
int ephemeral_append(struct ephemeral *, const struct tmem_handle *, uint64_t seq);
/* Takes the oldest entry out; false when there is none. */
bool ephemeral_take(struct ephemeral *, struct ephemeral_entry *);
/* Drops the entries that `keep` does not want; it may take a page's lock. */
void ephemeral_sweep(struct ephemeral *,
		     bool (*keep)(void *ctx, const struct ephemeral_entry *), void *ctx);
uint64_t ephemeral_entries(struct ephemeral *);

static inline uint32_t ephemeral_seq(uint64_t seq)
{
	return (uint32_t)seq & 0xffffffu;
}

#endif
