/* SPDX-License-Identifier: BSD-3-Clause */
#include "admission.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64u
/* Where pages share bits a window sets so few of them that seven of eight unread pages find none set
 * in either generation; each of the others is cached a read too early, which harms nobody. */
#define BITS_A_NOTE 16u

void admission_init(struct admission *a)
{
	*a = (struct admission){.window = UINT64_MAX};
	pthread_mutex_init(&a->mutex, NULL);
}

void admission_destroy(struct admission *a)
{
	free(a->notes[0]);
	free(a->notes[1]);
	pthread_mutex_destroy(&a->mutex);
}

int admission_begin(struct admission *a, uint64_t pages, uint64_t window)
{
	uint64_t bits = WORD_BITS;

	while (bits < pages && bits < ADMISSION_BITS_MOST)
		bits *= 2;
	if (pages > bits && window > bits / BITS_A_NOTE)
		window = bits / BITS_A_NOTE;
	uint64_t *newer = calloc(bits / WORD_BITS, sizeof *newer);
	uint64_t *older = calloc(bits / WORD_BITS, sizeof *older);
	if (!newer || !older) {
		free(newer);
		free(older);
		return -ENOMEM;
	}
	a->notes[0] = newer;
	a->notes[1] = older;
	a->bits = bits;
	a->window = window;
	return 0;
}

/* Neighbours have bits of their own also where pages share them. */
static uint64_t bit_of(const struct admission *a, uint64_t page)
{
	uint64_t round = page / a->bits;

	return (page + round * 0x9e3779b97f4a7c15ull) & (a->bits - 1);
}

static bool is_set(const uint64_t *notes, uint64_t bit)
{
	return notes[bit / WORD_BITS] >> bit % WORD_BITS & 1;
}

static bool is_noted(const struct admission *a, uint64_t bit)
{
	return is_set(a->notes[0], bit) || is_set(a->notes[1], bit);
}

/* Under the mutex. */
static void begin_generation(struct admission *a)
{
	uint64_t *oldest = a->notes[1];

	memset(oldest, 0, a->bits / WORD_BITS * sizeof *oldest);
	a->notes[1] = a->notes[0];
	a->notes[0] = oldest;
	a->noted = 0;
}

/* Pages that are noted already count too: the window is one of reads, or notes of an image that was
 * read as a whole would never be forgotten. */
bool admission_note(struct admission *a, uint64_t page)
{
	if (!admission_is_on(a))
		return true;
	pthread_mutex_lock(&a->mutex);
	uint64_t bit = bit_of(a, page);
	bool known = is_noted(a, bit);
	if (a->noted >= a->window)
		begin_generation(a);
	a->notes[0][bit / WORD_BITS] |= 1ull << bit % WORD_BITS;
	a->noted++;
	pthread_mutex_unlock(&a->mutex);
	return known;
}

bool admission_knows(struct admission *a, uint64_t page)
{
	if (!admission_is_on(a))
		return true;
	pthread_mutex_lock(&a->mutex);
	bool known = is_noted(a, bit_of(a, page));
	pthread_mutex_unlock(&a->mutex);
	return known;
}
