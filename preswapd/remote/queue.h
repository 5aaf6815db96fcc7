/* SPDX-License-Identifier: BSD-3-Clause */
/* What is to go out to the courier, and waits for room: frames of sets and deletes, in a ring.
 *
 * Any thread adds, and one at a time takes, in the order in which they were added; neither waits for the other.
 * While a set is here, its value is found by its id.
 */
#ifndef PRESWAPD_QUEUE_H
#define PRESWAPD_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What leaves memory faster than a store takes it: a burst of some 8,000 pages, in memory that is given back once they
 * have gone.  A test has a shorter one. */
#ifndef QUEUE_BYTES
#define QUEUE_BYTES (16u << 20)
#endif

struct queue {
	pthread_mutex_t adding;        /* what is added, and where it lies */
	bool is_open;                  /* there is who will take it */
	uint8_t *ring;                 /* frames, none of which is broken in two */
	uint64_t *places;              /* the position of the last frame of such an id */
	uint64_t head, tail;           /* of bytes that have left it, and that were added; only grow; atomic */
	uint64_t emptied;              /* where it began after its memory was given back */
};

/* -ENOMEM. */
int queue_init(struct queue *);
void queue_destroy(struct queue *);

void queue_open(struct queue *);
/* What is in it is forgotten.  While nobody takes, as queue_shorten(). */
void queue_close(struct queue *);
/* Gives memory back, if it is empty and was long. */
void queue_shorten(struct queue *);

/* Bytes. */
size_t queue_used(const struct queue *);
/* Whether there may be room for one more set. */
bool queue_has_room(const struct queue *);
/* False: it is full, or closed. */
bool queue_add(struct queue *, const uint8_t *frame, size_t bytes);
/* The frame of the set with this id; NULL: it is not here, or not any more.  It stays until queue_let_go(), which is to
 * follow in any case. */
const uint8_t *queue_hold(struct queue *, uint64_t id);
void queue_let_go(struct queue *);

/* --- Who takes ---------------------------------------------------------------------------------- */

/* Its first frames, whole and side by side: `most` sets at most, and no more frames once they are `enough` bytes. */
const uint8_t *queue_next(struct queue *, size_t enough, unsigned most, size_t *bytes);
/* Of such a number of bytes from there: those of the frames that begin within it, and how many of them are sets. */
size_t queue_begun(const struct queue *, size_t bytes, unsigned *sets);
/* Frames of so many bytes leave it. */
void queue_leave(struct queue *, size_t bytes);

#endif
