/* SPDX-License-Identifier: BSD-3-Clause */
#define _GNU_SOURCE                    /* pthread_cond_clockwait */
#include "staging.h"

#include "clock.h"

bool staging_is_on(const struct slabs *s)
{
	return __atomic_load_n(&s->stages, __ATOMIC_RELAXED);
}

void staging_set(struct slabs *s, bool on)
{
	__atomic_store_n(&s->stages, on, __ATOMIC_RELAXED);
}

uint32_t staging_slabs(struct slabs *s)
{
	pthread_mutex_lock(&s->mutex);
	uint32_t slabs = (uint32_t)(s->staged_bytes / SLAB_BYTES);
	pthread_mutex_unlock(&s->mutex);
	return slabs;
}

/* When two thirds of what it may take are staged. */
bool staging_presses(struct slabs *s)
{
	pthread_mutex_lock(&s->mutex);
	bool presses = !slabs_within_limit(s, s->staged_bytes + STAGING_SPARES, 0);
	pthread_mutex_unlock(&s->mutex);
	return presses;
}

bool staging_wait(struct slabs *s, unsigned milliseconds, unsigned for_more)
{
	struct timespec end = monotonic_in(milliseconds);
	int err = 0;

	pthread_mutex_lock(&s->mutex);
	while (!s->staged_bytes && !err)
		err = pthread_cond_clockwait(&s->staged_more, &s->mutex, CLOCK_MONOTONIC, &end);
	end = monotonic_in(for_more);
	while (!s->staged.first && !err)
		err = pthread_cond_clockwait(&s->staged_more, &s->mutex, CLOCK_MONOTONIC, &end);
	bool full = s->staged.first != 0;
	pthread_mutex_unlock(&s->mutex);
	return full;
}

uint32_t staging_take(struct slabs *s, bool also_open)
{
	pthread_mutex_lock(&s->mutex);
	uint32_t n = s->staged.first;
	for (unsigned codec = 0; !n && also_open && codec < TMEM_NONE; codec++)
		n = s->staging[codec].first;
	if (n) {
		slabs_unlist(s, n);
		s->slab[n].place = MOVING;
	}
	pthread_mutex_unlock(&s->mutex);
	return n;
}

void staging_return(struct slabs *s, uint32_t n, bool tried)
{
	pthread_mutex_lock(&s->mutex);
	if (tried)
		slabs_end_staging(s, &s->slab[n]);
	slabs_put_back(s, n);
	pthread_mutex_unlock(&s->mutex);
}
