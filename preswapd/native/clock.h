/* SPDX-License-Identifier: BSD-3-Clause */
/* Nanoseconds of one clock or another, and moments to wait until. */
#ifndef PRESWAPD_CLOCK_H
#define PRESWAPD_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Since some moment before the process began; never steps back. */
static inline uint64_t monotonic_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* The same clock as of the kernel's last tick, some milliseconds ago: a quarter of the time to
 * read, for what counts in tenths of a second. */
static inline uint64_t coarse_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC_COARSE);
}

/* How long the calling thread has had a processor. */
static inline uint64_t thread_cpu_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* The moment so far from now, for pthread_cond_clockwait() with CLOCK_MONOTONIC. */
static inline struct timespec monotonic_in(unsigned milliseconds)
{
	uint64_t ns = monotonic_ns() + milliseconds * 1000000ull;

	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
				 .tv_nsec = (long)(ns % 1000000000u)};
}

static inline void sleep_ms(unsigned milliseconds)
{
	struct timespec t = {.tv_sec = milliseconds / 1000u,
			     .tv_nsec = (long)(milliseconds % 1000u) * 1000000};

	nanosleep(&t, NULL);
}

#endif
