/* SPDX-License-Identifier: BSD-3-Clause */
/* What is in flight on a device: its clients' requests, and work of our own.
 *
 * A client that hung up and came back sends its unanswered requests again; an old one that ends
 * late would overwrite a newer page.  So a new connection's first request waits until the
 * requests that were in flight when it opened have ended.  Removal waits for all; a clean stop
 * lets none begin any more, and answers none: the client sends them again.
 */
#ifndef PRESWAPD_FLIGHTS_H
#define PRESWAPD_FLIGHTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct flight {
	struct flight *next, *prev;
	uint64_t epoch;                /* of the device, when the request began */
};

enum flights_gate { FLIGHTS_OPEN, FLIGHTS_PARKED, FLIGHTS_CLOSED };

struct flights {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct flight all;             /* a ring, oldest first */
	uint64_t epoch, connections;
	uint64_t last_io;              /* atomic; ns, CLOCK_MONOTONIC_COARSE; 0: none yet */
	enum flights_gate gate;
};

#define FLIGHTS_OURS 0u                /* the epoch of work that is no client's */

void flights_init(struct flights *);
void flights_destroy(struct flights *);
/* A connection opens: its epoch. */
uint64_t flights_connect(struct flights *);
void flights_disconnect(struct flights *);
/* A client reads, writes or gives back.  A flush is none: QEMU flushes a disk that it takes away. */
void flights_note_io(struct flights *);
/* Negative: there was none yet. */
double flights_seconds_since_io(const struct flights *);
/* Waits for what is older than the epoch.  -ESHUTDOWN: the device is being removed.  -EAGAIN, from
 * try_begin only: it would have to wait. */
int flights_begin(struct flights *, struct flight *, uint64_t epoch);
int flights_try_begin(struct flights *, struct flight *, uint64_t epoch);
void flights_end(struct flights *, struct flight *);
/* Nothing begins any more and whoever tries waits for ever; true when all has ended in time. */
bool flights_park(struct flights *, unsigned milliseconds);
/* Nothing begins any more, and what was in flight has ended. */
void flights_close(struct flights *);
bool flights_are_closed(struct flights *);

#endif
