/* SPDX-License-Identifier: BSD-3-Clause */
/* How far apart the uses of a page are: how many other pages its guest used between two of them.
 *
 * That tells which reads a pool of any size would have from memory, and which swap-ins a larger guest
 * would not have.  Only a sample of pages is followed, chosen by a hash of their numbers: the uses of
 * those are all seen, and each page of it stands for as many as one in so many was chosen.  Whoever is
 * not chosen costs a hash and a compare.  When the sample is full half of it goes, and what comes is
 * chosen half as often: so it has room for 2^13 pages, 320 KiB, of however many.
 *
 * A read's distances, in pages:
 *   pool   those used since its last use, and itself: a pool of as many has it, that drops the page
 *          whose last use is longest ago
 *   most   those written since and not read since, and itself: what the guest had put out after it, and
 *          had not back.  With as much more memory it had not put it out, if it puts out what it has not
 *          used for longest
 *   least  the same where pages that were read may be out too: a guest that has not changed a page
 *          since it was read need not write it again to put it out, and nobody sees that.  Of those
 *          that were read since, twice the share is counted that is read again rather than written or
 *          trimmed, and all of them at most
 */
#ifndef PRESWAPD_SAMPLER_H
#define PRESWAPD_SAMPLER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define SAMPLES (1u << 13)
/* At first one page in 16: a device of a GiB has room, and the cost is hardly measurable. */
#define SAMPLER_SHIFT 4u
#define SAMPLER_POSITIONS (2 * SAMPLES)
/* By log16_of() a distance: those of the largest device, and more than it has pages. */
#define DISTANCE_STEPS (33u * 16u)

/* Reads of one device by their distances, in pages; each is as many as the sample stands for. */
struct distances {
	uint64_t period;               /* those of another one are no more */
	uint64_t pool[DISTANCE_STEPS], least[DISTANCE_STEPS], most[DISTANCE_STEPS];
	uint64_t unseen;               /* reads of pages that were used last before this process began */
	uint64_t samples;              /* reads that were looked at */
};

/* Of the period under way, and of the one before. */
struct sampled {
	struct distances of[2];
};

struct sample {
	uint64_t key;                  /* 0: free */
	uint32_t position;             /* of its last use among those of all, 1 to SAMPLER_POSITIONS */
	bool is_out;                   /* that was a write */
};

struct sampler {
	uint64_t below;                /* a page is chosen whose hash is less; atomic */
	uint8_t apart[56];             /* every request reads that, and seldom one writes these */
	pthread_mutex_t lock;          /* for all below, and all struct sampled */
	uint32_t shift;                /* one page in 2^shift is chosen */
	uint32_t samples, last;        /* how many there are; the last position that is taken */
	uint64_t period;
	uint64_t read_again, not_read_again;   /* pages that had been read, by what came next */
	struct sample *table;          /* SAMPLER_POSITIONS, by hash */
	/* At how many positions there is the last use of a sample, or one that is out, as sums of
	 * ranges: see sampler.c. */
	uint16_t *used, *out;
};

/* -ENOMEM. */
int sampler_init(struct sampler *, uint32_t shift);
void sampler_destroy(struct sampler *);

/* A page of a device, as a number that is never 0 where it is not page 0. */
static inline uint64_t sampler_key(uint32_t type, uint64_t page)
{
	return (uint64_t)type << 36 ^ page;
}

static inline uint64_t sampler_hash(uint64_t key)
{
	key *= 0x9e3779b97f4a7c15u;
	key ^= key >> 32;
	return key * 0xbf58476d1ce4e5b9u;
}

static inline bool sampler_chooses(const struct sampler *s, uint64_t key)
{
	return sampler_hash(key) < __atomic_load_n(&s->below, __ATOMIC_RELAXED);
}

/* A chosen page is written or read. */
void sampler_note(struct sampler *, struct sampled *, uint64_t key, bool is_read);
/* It is dropped. */
void sampler_drop(struct sampler *, uint64_t key);

/* A new period begins: reads of the one before the last are no more. */
void sampler_turn(struct sampler *);
/* Adds the reads of a device in both periods. */
void sampler_add(struct sampler *, const struct sampled *, struct distances *sum);

struct sampler_state {
	uint64_t one_in;               /* pages, of which one is followed */
	uint64_t samples;              /* those that are */
	uint64_t read_again, not_read_again;
};
void sampler_state(struct sampler *, struct sampler_state *);

#endif
