/* Requests in flight on a device.
 *
 * A client that hung up and came back sends its unanswered requests again; an old one that ends
 * late would overwrite a newer page.  So a new connection's first request waits until the
 * requests that were in flight when it opened have ended (DESIGN 4b).  Removal waits for all.
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

struct flights {
	pthread_mutex_t mutex;
	pthread_cond_t landed;
	struct flight all;             /* a ring, oldest first */
	uint64_t epoch, connections;
	uint64_t last_io;              /* ns, CLOCK_MONOTONIC_COARSE; 0: none yet */
	bool closed;
};

void flights_init(struct flights *);
void flights_destroy(struct flights *);
/* A connection opens: its epoch. */
uint64_t flights_connect(struct flights *);
void flights_disconnect(struct flights *);
/* False: the device is being removed. */
bool flights_begin(struct flights *, struct flight *);
void flights_end(struct flights *, struct flight *);
bool flights_older(struct flights *, uint64_t epoch);
void flights_wait_older(struct flights *, uint64_t epoch);
/* No request begins any more, and those in flight have ended. */
void flights_close(struct flights *);
uint64_t flights_now(void);

#endif
