/* SPDX-License-Identifier: BSD-3-Clause */
/* The sampler alone, with room for TEST_SAMPLES; a library for tests/preswap/test_sampler.py. */
#include <stdlib.h>

#include "sampler.h"
#undef SAMPLES
#define SAMPLES TEST_SAMPLES
#include "sampler.c"

enum { READ, WRITE, TRIM };

struct fed {
	struct sampler sampler;
	struct sampled sampled;
};

struct fed *test_new(uint32_t shift)
{
	struct fed *f = calloc(1, sizeof *f);

	if (!f || sampler_init(&f->sampler, shift))
		abort();
	return f;
}

void test_end(struct fed *f)
{
	sampler_destroy(&f->sampler);
	free(f);
}

/* As a device does it. */
void test_feed(struct fed *f, const uint8_t *ops, const uint64_t *pages, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t key = sampler_key(1, pages[i]);
		if (!sampler_chooses(&f->sampler, key))
			continue;
		if (ops[i] == TRIM)
			sampler_drop(&f->sampler, key);
		else
			sampler_note(&f->sampler, &f->sampled, key, ops[i] == READ);
	}
}

void test_turn(struct fed *f)
{
	sampler_turn(&f->sampler);
}

void test_sum(struct fed *f, struct distances *sum)
{
	memset(sum, 0, sizeof *sum);
	sampler_add(&f->sampler, &f->sampled, sum);
}

void test_state(struct fed *f, struct sampler_state *to)
{
	sampler_state(&f->sampler, to);
}

/* What a sampler takes at most, and what it takes in each device. */
uint64_t test_bytes(void)
{
	return SAMPLER_POSITIONS * sizeof(struct sample) + 2 * (SAMPLER_POSITIONS + 1) * sizeof(uint16_t);
}

uint64_t test_device_bytes(void)
{
	return sizeof(struct sampled);
}

uint64_t test_hash(uint64_t page)
{
	return sampler_hash(sampler_key(1, page));
}

unsigned test_log16(uint64_t n)
{
	return log16_of(n);
}
