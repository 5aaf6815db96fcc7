/* SPDX-License-Identifier: BSD-3-Clause */
#include "sampler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log16.h"

#define MASK (SAMPLER_POSITIONS - 1)
/* Pages that count as read again before any was seen: at first all may be out that were read. */
#define TAKEN_AS_READ 1024u

int sampler_init(struct sampler *s, uint32_t shift)
{
	memset(s, 0, sizeof *s);
	pthread_mutex_init(&s->lock, NULL);
	s->shift = shift;
	s->period = 1;
	/* Only what is used of them takes memory. */
	s->table = calloc(SAMPLER_POSITIONS, sizeof *s->table);
	s->used = calloc(2 * (SAMPLER_POSITIONS + 1), sizeof *s->used);
	if (!s->table || !s->used)
		return -ENOMEM;
	s->out = s->used + SAMPLER_POSITIONS + 1;
	s->below = UINT64_MAX >> shift;
	return 0;
}

void sampler_destroy(struct sampler *s)
{
	free(s->table);
	free(s->used);
	pthread_mutex_destroy(&s->lock);
}

/* --- Which samples there are: a hash table without tombstones ----------------------------------- */

static uint32_t home_of(uint64_t key)
{
	return sampler_hash(key) & MASK;
}

/* The key's place, or the free one where it belongs. */
static struct sample *find(struct sampler *s, uint64_t key)
{
	uint32_t at = home_of(key);

	while (s->table[at].key && s->table[at].key != key)
		at = (at + 1) & MASK;
	return &s->table[at];
}

/* Those behind it that would not be found any more move up. */
static void take_out(struct sampler *s, struct sample *gone)
{
	uint32_t hole = (uint32_t)(gone - s->table), at = hole;

	while (s->table[at = (at + 1) & MASK].key) {
		uint32_t home = home_of(s->table[at].key);
		if (((at - home) & MASK) < ((at - hole) & MASK))
			continue;
		s->table[hole] = s->table[at];
		hole = at;
	}
	s->table[hole].key = 0;
	s->samples--;
}

/* --- How many positions are taken: entry i has the sum of as many, up to i, as its lowest bit says -- */

static void change(uint16_t *sums, uint32_t position, int by)
{
	for (; position <= SAMPLER_POSITIONS; position += position & -position)
		sums[position] = (uint16_t)(sums[position] + by);
}

static uint32_t up_to(const uint16_t *sums, uint32_t position)
{
	uint32_t sum = 0;

	for (; position; position &= position - 1)
		sum += sums[position];
	return sum;
}

static uint32_t behind(const struct sampler *s, const uint16_t *sums, uint32_t position)
{
	return up_to(sums, s->last) - up_to(sums, position);
}

static void sum_up(uint16_t *sums)
{
	for (uint32_t i = 1; i <= SAMPLER_POSITIONS; i++) {
		uint32_t above = i + (i & -i);
		if (above <= SAMPLER_POSITIONS)
			sums[above] = (uint16_t)(sums[above] + sums[i]);
	}
}

static void note_use(struct sampler *s, const struct sample *sample, int by)
{
	change(s->used, sample->position, by);
	if (sample->is_out)
		change(s->out, sample->position, by);
}

/* The positions of the samples become 1, 2, 3, …, in the same order. */
static void renumber(struct sampler *s)
{
	struct sample *end = s->table + SAMPLER_POSITIONS;

	memset(s->used, 0, 2 * (SAMPLER_POSITIONS + 1) * sizeof *s->used);
	for (const struct sample *i = s->table; i < end; i++)
		if (i->key)
			s->used[i->position] = 1;
	s->last = 0;
	for (uint32_t i = 1; i <= SAMPLER_POSITIONS; i++)
		s->used[i] = (uint16_t)(s->last += s->used[i]);
	for (struct sample *i = s->table; i < end; i++)
		if (i->key) {
			i->position = s->used[i->position];
			s->out[i->position] = i->is_out;
		}
	for (uint32_t i = 1; i <= SAMPLER_POSITIONS; i++)
		s->used[i] = i <= s->last;
	sum_up(s->used);
	sum_up(s->out);
}

static void halve(struct sampler *s)
{
	s->shift++;
	__atomic_store_n(&s->below, s->below >> 1, __ATOMIC_RELAXED);
	for (struct sample *i = s->table; i < s->table + SAMPLER_POSITIONS; i++)
		while (i->key && !sampler_chooses(s, i->key))
			take_out(s, i);
	renumber(s);
}

/* --- What is noted ------------------------------------------------------------------------------ */

static struct distances *reads_now(const struct sampler *s, struct sampled *r)
{
	struct distances *now = &r->of[s->period % 2];

	if (now->period != s->period) {
		memset(now, 0, sizeof *now);
		now->period = s->period;
	}
	return now;
}

/* `others` of the samples lie between: so many pages, and the page itself. */
static unsigned step_of(const struct sampler *s, uint64_t others)
{
	unsigned step = log16_of((others << s->shift) + 1);

	return step < DISTANCE_STEPS ? step : DISTANCE_STEPS - 1;
}

static void note_distance(const struct sampler *s, struct distances *d, const struct sample *sample)
{
	uint64_t used = behind(s, s->used, sample->position);
	uint64_t out = behind(s, s->out, sample->position);
	uint64_t again = s->read_again + TAKEN_AS_READ, known = again + s->not_read_again;
	/* Twice their share, to be on the safe side: with the share itself the least was up to 0.2 too
	 * much for guests that go through all their memory in a loop. */
	uint64_t maybe = (used - out) * (2 * again < known ? 2 * again : known) / known;

	d->pool[step_of(s, used)] += 1ull << s->shift;
	d->least[step_of(s, out + maybe)] += 1ull << s->shift;
	d->most[step_of(s, out)] += 1ull << s->shift;
}

static void note_return(struct sampler *s, const struct sample *sample, bool is_read)
{
	if (!sample->is_out && is_read)
		s->read_again += 1ull << s->shift;
	else if (!sample->is_out)
		s->not_read_again += 1ull << s->shift;
}

static void note(struct sampler *s, struct sampled *r, uint64_t key, bool is_read)
{
	struct distances *now = reads_now(s, r);
	struct sample *sample = find(s, key);

	if (is_read) {
		now->samples++;
		if (sample->key)
			note_distance(s, now, sample);
		else
			now->unseen += 1ull << s->shift;
	}
	if (sample->key) {
		note_return(s, sample, is_read);
		note_use(s, sample, -1);
	} else {
		s->samples++;
	}
	/* What has no position is in its order anyway, and gets the next one. */
	*sample = (struct sample){key, ++s->last, !is_read};
	note_use(s, sample, 1);
	if (s->samples >= SAMPLES)
		halve(s);
	else if (s->last == SAMPLER_POSITIONS)
		renumber(s);
}

void sampler_note(struct sampler *s, struct sampled *r, uint64_t key, bool is_read)
{
	pthread_mutex_lock(&s->lock);
	/* Half of the pages may have gone meanwhile. */
	if (sampler_chooses(s, key))
		note(s, r, key, is_read);
	pthread_mutex_unlock(&s->lock);
}

void sampler_drop(struct sampler *s, uint64_t key)
{
	pthread_mutex_lock(&s->lock);
	struct sample *sample = find(s, key);
	if (sample->key) {
		note_return(s, sample, false);
		note_use(s, sample, -1);
		take_out(s, sample);
	}
	pthread_mutex_unlock(&s->lock);
}

/* --- What comes of it --------------------------------------------------------------------------- */

void sampler_turn(struct sampler *s)
{
	pthread_mutex_lock(&s->lock);
	s->period++;
	pthread_mutex_unlock(&s->lock);
}

static void add(struct distances *sum, const struct distances *d)
{
	for (unsigned i = 0; i < DISTANCE_STEPS; i++) {
		sum->pool[i] += d->pool[i];
		sum->least[i] += d->least[i];
		sum->most[i] += d->most[i];
	}
	sum->unseen += d->unseen;
	sum->samples += d->samples;
}

void sampler_add(struct sampler *s, const struct sampled *r, struct distances *sum)
{
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < 2; i++)
		if (r->of[i].period && r->of[i].period + 1 >= s->period)
			add(sum, &r->of[i]);
	pthread_mutex_unlock(&s->lock);
}

void sampler_state(struct sampler *s, struct sampler_state *to)
{
	pthread_mutex_lock(&s->lock);
	*to = (struct sampler_state){1ull << s->shift, s->samples, s->read_again, s->not_read_again};
	pthread_mutex_unlock(&s->lock);
}
