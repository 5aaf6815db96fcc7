/* SPDX-License-Identifier: BSD-3-Clause */
/* The server's end of the socket to its courier, a process that speaks to the store.
 *
 * Who asks also reads: of the threads that wait for an answer one reads for all, so that an answer wakes
 * one thread and not two.  While nobody waits, the thread in courier_serve() reads.
 *
 * Nobody waits to send.  A get goes out at once or not at all.  Sets wait in a queue (queue.h), so few are under
 * way at a time that a get never stands behind many of them and finds room; what does not fit into the queue
 * is dropped.
 *
 * Nothing that comes is believed beyond its form, and whoever breaks the form is given up.
 */
#ifndef PRESWAPD_COURIER_H
#define PRESWAPD_COURIER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"
#include "queue.h"
#include "remote.h"

/* Sets that go out before the first of them is answered.  While pages are read 64 KiB of them, as a get stands
 * behind them; else so many that who carries them hardly ever waits. */
#define COURIER_UNANSWERED 32u
#define COURIER_UNANSWERED_ALONE 256u
/* Names in a frame of those that are deleted. */
#define COURIER_DELETED 256u
/* The gets of a run: the longest piece of which a part may have gone out, and the rest waits. */
#define COURIER_GETS_BYTES (REMOTE_WANTS_MOST / FRAME_NAMES * FRAME_HEAD_BYTES + REMOTE_WANTS_MOST * NAME_BYTES)
#define COURIER_REST_BYTES COURIER_GETS_BYTES
#define COURIER_WHY_BYTES 96u

/* Of a page that was asked for; the first ones are the courier's. */
enum want_status { WANT_BROKEN = 254, WANT_OPEN = 255 };

struct ask;

struct courier_counters {
	uint64_t sets, sets_dropped, sets_refused;      /* atomic */
	uint64_t heard;                /* how often it has said how the store is */
};

struct courier {
	pthread_mutex_t mutex;         /* all of it, but for what the reader reads into */
	pthread_cond_t left;           /* nobody uses the socket any more */
	int fd, epoll;                 /* -1: none */
	unsigned users;                /* threads that have them in their hands */
	bool is_there;                 /* atomic: it was not given up */
	bool is_read;                  /* somebody reads */
	bool is_served;                /* a thread is in courier_serve() */
	char why[COURIER_WHY_BYTES];   /* it was given up */
	/* out */
	size_t socket_bytes;           /* the socket takes so many, as the kernel counts them */
	uint8_t rest[COURIER_REST_BYTES];      /* of what has gone out in part */
	size_t rest_at, rest_end;
	bool is_full;                  /* the socket takes no more of what is queued */
	bool is_short;                 /* the host had no memory for what it would take */
	struct queue queue;            /* sets and deletes; its mutex is taken behind the other, or alone */
	unsigned unanswered;           /* sets */
	uint64_t answered;             /* ns, when the last of them was */
	uint64_t next_id;              /* of gets */
	uint64_t asked;                /* ns, when the last of them was begun */
	/* in */
	struct ask *asks;              /* who waits */
	struct ask *ended, *heir;      /* who is to be told so, and that it reads, once the mutex is free */
	uint8_t *in;                   /* the reader's */
	size_t in_end;
	uint8_t *status;               /* what it last said of the store */
	size_t status_bytes;
	struct courier_counters count;
};

/* -ENOMEM. */
int courier_init(struct courier *);
void courier_destroy(struct courier *);

/* Takes the descriptor.  -EBUSY: there is one; -ENOMEM, or another error: the descriptor is the caller's. */
int courier_connect(struct courier *, int fd);
/* Whoever waits goes on without it; returns when nobody uses its socket any more. */
void courier_disconnect(struct courier *);
/* Reads, while nobody else does, until it is gone: why. */
const char *courier_serve(struct courier *);

static inline bool courier_is_there(const struct courier *c)
{
	return __atomic_load_n(&c->is_there, __ATOMIC_RELAXED);
}

/* Asks for pages, whose values have `head` bytes before the page's own, and waits until `deadline` (ns,
 * monotonic).  How many were answered, in whatever way. */
unsigned courier_ask(struct courier *, struct remote_want **, unsigned n, const uint8_t *names,
		     unsigned head, uint64_t deadline);
/* Whether there may be room for one more set. */
bool courier_has_room(const struct courier *);
/* A frame is to go out; false: dropped. */
bool courier_set(struct courier *, const uint8_t *frame, size_t bytes);
/* The value of the set with this id, which is still queued, as if it had been asked for.  False: it is not. */
bool courier_take_queued(struct courier *, uint64_t id, unsigned head, struct remote_want *);
/* What is queued goes out, as far as it may. */
void courier_push(struct courier *);
/* Names to be deleted, COURIER_DELETED at most, behind the sets before.  False: dropped. */
bool courier_delete(struct courier *, const uint8_t *names, unsigned n);
/* Once a second: what is queued goes out, also to a courier that forgets to answer sets. */
void courier_tick(struct courier *, uint64_t now);

/* The last status into `to`, which has room for so much: how much there is. */
size_t courier_status(struct courier *, uint8_t *to, size_t room);

#endif
