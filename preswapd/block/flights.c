/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE
#include "flights.h"

#include <errno.h>

#include "clock.h"

void flights_init(struct flights *f)
{
	*f = (struct flights){.arrivals = 1};
	f->all.next = f->all.prev = &f->all;
	pthread_mutex_init(&f->mutex, NULL);
	pthread_cond_init(&f->changed, NULL);
}

void flights_destroy(struct flights *f)
{
	pthread_mutex_destroy(&f->mutex);
	pthread_cond_destroy(&f->changed);
}

bool flights_connect(struct flights *f, struct arrival *mine)
{
	pthread_mutex_lock(&f->mutex);
	bool is_open = !f->is_shut;
	if (is_open) {
		mine->number = mine->since = ++f->arrivals;
		f->connections++;
	}
	pthread_mutex_unlock(&f->mutex);
	return is_open;
}

bool flights_shut(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	bool is_free = f->connections == 0;
	if (is_free)
		f->is_shut = true;
	pthread_mutex_unlock(&f->mutex);
	return is_free;
}

void flights_unshut(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	f->is_shut = false;
	pthread_mutex_unlock(&f->mutex);
}

void flights_note_io(struct flights *f)
{
	__atomic_store_n(&f->last_io, coarse_ns(), __ATOMIC_RELAXED);
}

double flights_seconds_since_io(const struct flights *f)
{
	uint64_t last = __atomic_load_n(&f->last_io, __ATOMIC_RELAXED);

	return last ? (double)(coarse_ns() - last) / 1e9 : -1;
}

void flights_note_asking(struct flights *f)
{
	__atomic_store_n(&f->is_asked, true, __ATOMIC_RELAXED);
}

bool flights_are_asked(const struct flights *f)
{
	return __atomic_load_n(&f->is_asked, __ATOMIC_RELAXED);
}

void flights_disconnect(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	f->connections--;
	pthread_mutex_unlock(&f->mutex);
}

uint64_t flights_requests(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	uint64_t requests = f->requests;
	pthread_mutex_unlock(&f->mutex);
	return requests;
}

static bool has_older(const struct flights *f, const struct arrival *mine)
{
	for (const struct flight *each = f->all.next; each != &f->all; each = each->next) {
		if (each->arrival >= mine->since)
			break;
		if (each->arrival < mine->number || each->is_change)
			return true;
	}
	return false;
}

/* From now on this connection changes things, and no older one does.  Of those that are open
 * changes may have begun after this one opened: it waits for those that are in flight by now. */
static int change(struct flights *f, struct arrival *by)
{
	if (by->number < f->changer)
		return -SUPERSEDED;
	if (by->number > f->changer) {
		f->changer = by->number;
		if (f->connections > 1)
			by->since = ++f->arrivals;
	}
	return 0;
}

/* Under the mutex. */
static int try_begin(struct flights *f, struct flight *mine, struct arrival *by,
		     enum flight_kind kind)
{
	if (f->gate == FLIGHTS_CLOSED)
		return -ESHUTDOWN;
	if (f->gate == FLIGHTS_PARKED)
		return -EAGAIN;
	if (by && kind == FLIGHT_CHANGES && change(f, by))
		return -SUPERSEDED;
	if (by && has_older(f, by))
		return -EAGAIN;
	mine->arrival = f->arrivals;
	mine->is_change = by && kind == FLIGHT_CHANGES;
	mine->next = &f->all;
	mine->prev = f->all.prev;
	mine->prev->next = f->all.prev = mine;
	f->requests += by != FLIGHTS_OURS;
	return 0;
}

int flights_try_begin(struct flights *f, struct flight *mine, struct arrival *by,
		      enum flight_kind kind)
{
	pthread_mutex_lock(&f->mutex);
	int err = try_begin(f, mine, by, kind);
	pthread_mutex_unlock(&f->mutex);
	return err;
}

int flights_begin(struct flights *f, struct flight *mine, struct arrival *by,
		  enum flight_kind kind)
{
	int err;

	pthread_mutex_lock(&f->mutex);
	while ((err = try_begin(f, mine, by, kind)) == -EAGAIN) {
		f->waiting++;
		pthread_cond_wait(&f->changed, &f->mutex);
		f->waiting--;
	}
	pthread_mutex_unlock(&f->mutex);
	return err;
}

void flights_end(struct flights *f, struct flight *mine)
{
	pthread_mutex_lock(&f->mutex);
	bool oldest = f->all.next == mine;
	mine->prev->next = mine->next;
	mine->next->prev = mine->prev;
	if (oldest || f->waiting)
		pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->mutex);
}

bool flights_park(struct flights *f, unsigned milliseconds)
{
	struct timespec end = monotonic_in(milliseconds);

	pthread_mutex_lock(&f->mutex);
	if (f->gate == FLIGHTS_OPEN)
		f->gate = FLIGHTS_PARKED;
	int err = 0;
	while (f->all.next != &f->all && err != ETIMEDOUT)
		err = pthread_cond_clockwait(&f->changed, &f->mutex, CLOCK_MONOTONIC, &end);
	bool all_ended = f->all.next == &f->all;
	pthread_mutex_unlock(&f->mutex);
	return all_ended;
}

void flights_resume(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	if (f->gate == FLIGHTS_PARKED)
		f->gate = FLIGHTS_OPEN;
	pthread_cond_broadcast(&f->changed);
	pthread_mutex_unlock(&f->mutex);
}

bool flights_are_closed(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	bool closed = f->gate == FLIGHTS_CLOSED;
	pthread_mutex_unlock(&f->mutex);
	return closed;
}

void flights_close(struct flights *f)
{
	pthread_mutex_lock(&f->mutex);
	f->gate = FLIGHTS_CLOSED;
	pthread_cond_broadcast(&f->changed);
	while (f->all.next != &f->all)
		pthread_cond_wait(&f->changed, &f->mutex);
	pthread_mutex_unlock(&f->mutex);
}
