/* SPDX-License-Identifier: BSD-3-Clause */
/* What is in flight on a device: its clients' requests, and the server's own work.
 *
 * A client that hung up and came back sends its unanswered requests again; an old one that ends
 * late would overwrite a newer page.  So a new connection's first request waits until the
 * requests that were in flight when it opened have ended, and its first change for other clients'
 * changes that began since.  From then on no older connection changes anything: what of it still
 * lies in a socket would be such an old request, too.  A removal waits for all requests; a clean
 * stop lets no more begin and leaves them unanswered: the client sends them again.
 */
#ifndef PRESWAPD_FLIGHTS_H
#define PRESWAPD_FLIGHTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "export.h"

struct flight {
	struct flight *next, *prev;
	uint64_t arrival;              /* the newest number when this began */
	bool is_change;                /* a client's */
};

/* A connection's.  Both are numbers of one counter, under the mutex. */
struct arrival {
	uint64_t number;               /* drawn when it opened: what began before is waited for */
	uint64_t since;                /* drawn at its first change: the same of changes */
};

enum flight_kind { FLIGHT_LOOKS, FLIGHT_CHANGES };

enum flights_gate { FLIGHTS_OPEN, FLIGHTS_PARKED, FLIGHTS_CLOSED };

struct flights {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	struct flight all;             /* a ring, oldest first */
	uint64_t arrivals;             /* the newest number */
	uint64_t changer;              /* of the newest connection that has changed anything */
	uint64_t connections;          /* open now */
	uint64_t requests;             /* of clients, that ever began */
	uint64_t waiting;              /* threads that would begin */
	uint64_t last_io;              /* atomic; ns, CLOCK_MONOTONIC_COARSE; 0: none yet */
	enum flights_gate gate;
	bool is_shut;                  /* no connection may open */
	bool is_asked;                 /* atomic; see flights_note_asking */
};

#define FLIGHTS_OURS NULL              /* the arrival of work that no client asked for */

void flights_init(struct flights *);
void flights_destroy(struct flights *);
/* A connection opens.  False: it is shut, and none opens. */
bool flights_connect(struct flights *, struct arrival *);
/* From now on no connection opens.  False, and nothing changes: there is one. */
bool flights_shut(struct flights *);
/* They may again. */
void flights_unshut(struct flights *);
void flights_disconnect(struct flights *);
/* How many requests of clients have begun: whether anything happens here. */
uint64_t flights_requests(struct flights *);
/* A client reads, writes or trims.  A flush does not count: QEMU flushes a disk that it detaches. */
void flights_note_io(struct flights *);
/* Negative: no client has read, written or trimmed yet. */
double flights_seconds_since_io(const struct flights *);
/* A client asks for something that whoever only looks what this is does not: a flush is such a thing. */
void flights_note_asking(struct flights *);
bool flights_are_asked(const struct flights *);
/* Waits for the flights that are older than this connection.  -ESHUTDOWN: the device is being
 * removed.  -SUPERSEDED: a newer connection has changed something, which this might change back.
 * -EAGAIN, from try_begin only: it would have to wait. */
int flights_begin(struct flights *, struct flight *, struct arrival *, enum flight_kind);
int flights_try_begin(struct flights *, struct flight *, struct arrival *, enum flight_kind);
void flights_end(struct flights *, struct flight *);
/* From now on nothing begins: who tries waits.  True: all flights ended in time. */
bool flights_park(struct flights *, unsigned milliseconds);
/* What was parked goes on. */
void flights_resume(struct flights *);
/* From now on nothing begins (-ESHUTDOWN).  Returns when all flights have ended. */
void flights_close(struct flights *);
bool flights_are_closed(struct flights *);

#endif
