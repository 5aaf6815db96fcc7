/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "frames.h"
#include "remote.h"

/* Of its memory, while it is empty. */
#define KEPT_BYTES (256u << 10)
/* Places of frames, by their ids: those of some 8,000 sets, as a rule. */
#define PLACES 16384u

_Static_assert(!(QUEUE_BYTES & (QUEUE_BYTES - 1)), "positions wrap in the ring");
_Static_assert(QUEUE_BYTES > KEPT_BYTES, "there is something to give back");

int queue_init(struct queue *q)
{
	memset(q, 0, sizeof *q);
	pthread_mutex_init(&q->adding, NULL);
	q->places = calloc(PLACES, sizeof *q->places);
	/* It takes memory where it is written. */
	q->ring = mmap(NULL, QUEUE_BYTES, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (q->ring == MAP_FAILED)
		q->ring = NULL;
	return q->ring && q->places ? 0 : -ENOMEM;
}

void queue_destroy(struct queue *q)
{
	if (q->ring)
		munmap(q->ring, QUEUE_BYTES);
	free(q->places);
	pthread_mutex_destroy(&q->adding);
}

/* Where a position lies in the ring. */
static size_t place_of(uint64_t position)
{
	return position % QUEUE_BYTES;
}

size_t queue_used(const struct queue *q)
{
	return __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE) - __atomic_load_n(&q->head, __ATOMIC_ACQUIRE);
}

bool queue_has_room(const struct queue *q)
{
	return queue_used(q) + 2 * REMOTE_SET_MOST < QUEUE_BYTES;
}

/* --- What is added ------------------------------------------------------------------------------ */

/* What does not fit before the ring's end begins at its beginning, and a head of zeros says so. */
static bool add(struct queue *q, const uint8_t *frame, size_t bytes)
{
	size_t at = place_of(q->tail), rest = QUEUE_BYTES - at, skipped = rest < bytes ? rest : 0;

	if (!q->is_open || queue_used(q) + skipped + bytes > QUEUE_BYTES)
		return false;
	if (skipped >= FRAME_HEAD_BYTES)
		memset(q->ring + at, 0, FRAME_HEAD_BYTES);
	if (skipped)
		at = 0;
	memcpy(q->ring + at, frame, bytes);
	/* Another frame's place may be lost by that, of an id so many before or after, and a get finds its set in the
	 * store then. */
	q->places[frame_at(frame).id % PLACES] = q->tail + skipped;
	__atomic_store_n(&q->tail, q->tail + skipped + bytes, __ATOMIC_RELEASE);
	return true;
}

bool queue_add(struct queue *q, const uint8_t *frame, size_t bytes)
{
	pthread_mutex_lock(&q->adding);
	bool added = add(q, frame, bytes);
	pthread_mutex_unlock(&q->adding);
	return added;
}

/* More of its memory was written to than is kept. */
static bool is_long(const struct queue *q)
{
	return q->tail - q->emptied > KEPT_BYTES;
}

/* It goes on at the ring's beginning, and at a position where it never was: no place of a frame is one of another. */
static void empty(struct queue *q)
{
	if (is_long(q))
		madvise(q->ring + KEPT_BYTES, QUEUE_BYTES - KEPT_BYTES, MADV_DONTNEED);
	q->emptied = (q->tail + QUEUE_BYTES - 1) / QUEUE_BYTES * QUEUE_BYTES;
	__atomic_store_n(&q->head, q->emptied, __ATOMIC_RELEASE);
	__atomic_store_n(&q->tail, q->emptied, __ATOMIC_RELEASE);
}

void queue_open(struct queue *q)
{
	pthread_mutex_lock(&q->adding);
	q->is_open = true;
	pthread_mutex_unlock(&q->adding);
}

void queue_close(struct queue *q)
{
	pthread_mutex_lock(&q->adding);
	q->is_open = false;
	empty(q);
	pthread_mutex_unlock(&q->adding);
}

void queue_shorten(struct queue *q)
{
	pthread_mutex_lock(&q->adding);
	if (!queue_used(q) && is_long(q))
		empty(q);
	pthread_mutex_unlock(&q->adding);
}

const uint8_t *queue_hold(struct queue *q, uint64_t id)
{
	pthread_mutex_lock(&q->adding);
	uint64_t head = __atomic_load_n(&q->head, __ATOMIC_ACQUIRE), place = q->places[id % PLACES];

	if (place < head || place >= q->tail)
		return NULL;
	const uint8_t *frame = q->ring + place_of(place);
	struct frame f = frame_at(frame);
	return f.op == FRAME_SET && f.id == id ? frame : NULL;
}

void queue_let_go(struct queue *q)
{
	pthread_mutex_unlock(&q->adding);
}

/* --- What is taken ------------------------------------------------------------------------------ */

/* Whether the frames in a row end here. */
static bool is_end(const struct queue *q, size_t at)
{
	return at + FRAME_HEAD_BYTES > QUEUE_BYTES || !frame_at(q->ring + at).op;
}

const uint8_t *queue_next(struct queue *q, size_t enough, unsigned most, size_t *bytes)
{
	size_t used = queue_used(q), at = place_of(q->head);

	if (used && is_end(q, at)) {
		queue_leave(q, QUEUE_BYTES - at);
		used -= QUEUE_BYTES - at;
		at = 0;
	}
	*bytes = 0;
	for (unsigned sets = 0; *bytes < used && *bytes < enough && sets < most;) {
		if (is_end(q, at + *bytes))
			break;
		struct frame f = frame_at(q->ring + at + *bytes);
		*bytes += FRAME_HEAD_BYTES + f.bytes;
		sets += f.op == FRAME_SET;
	}
	return q->ring + at;
}

size_t queue_begun(const struct queue *q, size_t bytes, unsigned *sets)
{
	const uint8_t *from = q->ring + place_of(q->head);
	size_t begun = 0;

	*sets = 0;
	while (begun < bytes) {
		struct frame f = frame_at(from + begun);
		begun += FRAME_HEAD_BYTES + f.bytes;
		*sets += f.op == FRAME_SET;
	}
	return begun;
}

void queue_leave(struct queue *q, size_t bytes)
{
	__atomic_store_n(&q->head, q->head + bytes, __ATOMIC_RELEASE);
}
