/* SPDX-License-Identifier: BSD-3-Clause */
/* Epochs and weights with a clock that a test turns; a library for tests/preswap/test_ages.py. */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static uint64_t test_ns;

static int test_clock(struct timespec *t)
{
	uint64_t ns = __atomic_load_n(&test_ns, __ATOMIC_RELAXED);

	*t = (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
	return 0;
}

#define clock_gettime(clock, t) ((void)(clock), test_clock(t))
#include "epochs.c"
#include "weights.c"

void test_set_ns(uint64_t ns)
{
	__atomic_store_n(&test_ns, ns, __ATOMIC_RELAXED);
}

struct epochs *test_new(void)
{
	struct epochs *e = malloc(sizeof *e);

	if (!e || epochs_init(e))
		abort();
	return e;
}

void test_end(struct epochs *e)
{
	epochs_destroy(e);
	free(e);
}

/* As requests do it: some pages are counted, and each of them is touched. */
void test_touch(struct epochs *e, uint16_t *touched, const uint64_t *pages, uint64_t n, bool is_read)
{
	epochs_count(e, n, monotonic_ns());
	for (uint64_t i = 0; i < n; i++)
		epochs_touch(e, &touched[pages[i]], is_read);
}

void test_renumber(struct epochs *e, uint16_t *touched, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		epochs_renumber(e, &touched[i]);
}

uint16_t test_now(const struct epochs *e)
{
	return epochs_now(e);
}

uint64_t test_reused(const struct epochs *e, unsigned step)
{
	return e->reused[step];
}

unsigned test_log16(uint64_t n)
{
	return log16_of(n);
}

uint64_t test_log16_least(unsigned steps)
{
	return log16_least(steps);
}

/* Touches all pages again and again while another thread renumbers. */
void test_hammer(struct epochs *e, uint16_t *touched, uint64_t n, uint64_t rounds)
{
	for (uint64_t round = 0; round < rounds; round++)
		for (uint64_t page = 0; page < n; page++) {
			epochs_count(e, 1, monotonic_ns());
			epochs_touch(e, &touched[page], round % 2);
		}
}
