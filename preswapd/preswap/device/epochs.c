/* SPDX-License-Identifier: BSD-3-Clause */
#include "epochs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS 1000000000ull
/* Touches before this process began have numbers below it. */
#define FIRST_TOUCH (1ull << 48)
/* Numbers of pages that an earlier process put, by how long before: 1 is the oldest. */
#define RESTORED (48u * 16u)
/* However small the pool is: numbers should not run out. */
#define LEAST_TOUCHES 64u
/* Of a half; what is left is for those that begin until numbers have changed over. */
#define PLENTY (EPOCHS_HALF / 4 * 3)

static uint64_t get(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static void set(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static void put_epoch(struct epochs *e, uint32_t number, uint64_t touches, uint64_t ns)
{
	set(&e->of[number].touches, touches);
	set(&e->of[number].ns, ns);
}

/* Makes it the one under way. */
static void begin(struct epochs *e, uint32_t number, uint64_t ns)
{
	uint64_t touches = get(&e->touches), share = get(&e->turn) / EPOCHS_A_TURN;

	put_epoch(e, number, touches, ns);
	set(&e->ends_at_touches, touches + (share > LEAST_TOUCHES ? share : LEAST_TOUCHES));
	set(&e->ends_at_ns, ns + SECOND_NS);
	__atomic_store_n(&e->now, number, __ATOMIC_RELEASE);
}

int epochs_init(struct epochs *e)
{
	uint64_t ns = monotonic_ns();

	memset(e, 0, sizeof *e);
	pthread_mutex_init(&e->changing, NULL);
	e->touches = FIRST_TOUCH;
	e->turn = 1;
	/* Only what is used of both takes memory. */
	e->of = calloc(EPOCHS, sizeof *e->of);
	e->renumbered = calloc(EPOCHS_HALF, sizeof *e->renumbered);
	if (!e->of || !e->renumbered)
		return -ENOMEM;
	put_epoch(e, 0, 0, ns);
	for (unsigned i = 1; i <= RESTORED; i++)
		put_epoch(e, i, FIRST_TOUCH - log16_least(RESTORED - i), ns);
	begin(e, RESTORED + 1, ns);
	return 0;
}

void epochs_destroy(struct epochs *e)
{
	free(e->of);
	free(e->renumbered);
	pthread_mutex_destroy(&e->changing);
}

void epochs_set_turn(struct epochs *e, uint64_t pages)
{
	set(&e->turn, pages ? pages : 1);
}

uint16_t epochs_restored(uint64_t puts)
{
	unsigned steps = log16_of(puts);

	return (uint16_t)(RESTORED - (steps < RESTORED ? steps : RESTORED - 1));
}

static uint32_t in_half(uint32_t number)
{
	return number % EPOCHS_HALF;
}

/* Where numbers have run out the epoch goes on: what is touched in it seems as old as its beginning. */
static void begin_next(struct epochs *e, uint64_t ns)
{
	if (in_half(e->now) + 1 < EPOCHS_HALF)
		begin(e, e->now + 1, ns);
}

uint16_t epochs_begin(struct epochs *e)
{
	pthread_mutex_lock(&e->changing);
	begin_next(e, monotonic_ns());
	uint16_t now = epochs_now(e);
	pthread_mutex_unlock(&e->changing);
	return now;
}

void epochs_end_due(struct epochs *e, uint64_t ns)
{
	/* Somebody else does it; the page may still get the number before. */
	if (pthread_mutex_trylock(&e->changing))
		return;
	if (get(&e->touches) >= get(&e->ends_at_touches) || ns >= get(&e->ends_at_ns))
		begin_next(e, ns);
	pthread_mutex_unlock(&e->changing);
}

/* --- Ages ------------------------------------------------------------------------------------- */

uint64_t epochs_age(const struct epochs *e, uint16_t number)
{
	uint64_t since = get(&e->touches) - get(&e->of[number].touches), turn = get(&e->turn);

	if (since >= AGE_TURNS * turn)
		return AGE_TURNS * EPOCHS_A_TURN;
	return since * EPOCHS_A_TURN / turn + 1;
}

double epochs_seconds(const struct epochs *e, uint16_t number, uint64_t now_ns)
{
	uint64_t ns = get(&e->of[number].ns);

	return now_ns > ns ? (double)(now_ns - ns) / SECOND_NS : 0.0;
}

bool epochs_is_since(const struct epochs *e, uint16_t number, uint16_t that)
{
	/* Of the same half the numbers say it; in the other half, merged ones are older. */
	if (number / EPOCHS_HALF == that / EPOCHS_HALF)
		return number >= that;
	return get(&e->of[number].touches) > get(&e->of[that].touches);
}

void epochs_note_reuse(struct epochs *e, uint16_t before, uint16_t now)
{
	uint64_t then = get(&e->of[before].ns), ns = get(&e->of[now].ns);

	if (ns >= then + SECOND_NS)
		__atomic_fetch_add(&e->reused[epochs_reuse_step((double)(ns - then) / SECOND_NS)],
				   1, __ATOMIC_RELAXED);
}

/* --- Numbers change over ------------------------------------------------------------------------ */

bool epochs_are_scarce(const struct epochs *e)
{
	return in_half(epochs_now(e)) >= PLENTY;
}

/* Is the later of two epochs so much younger that it is worth a number of its own? */
static bool is_apart(const struct epoch *before, const struct epoch *later, uint64_t touches,
		     uint64_t ns)
{
	return (touches - get(&later->touches)) * 33 < (touches - get(&before->touches)) * 32 ||
	       (ns - get(&later->ns)) * 33 < (ns - get(&before->ns)) * 32;
}

void epochs_change_over(struct epochs *e)
{
	pthread_mutex_lock(&e->changing);
	/* Under the lock: no epoch may have begun after that moment. */
	uint64_t touches = get(&e->touches), ns = monotonic_ns();
	uint32_t last = e->now, first = last / EPOCHS_HALF * EPOCHS_HALF;
	uint32_t to = EPOCHS_HALF - first;
	const struct epoch *before = NULL;
	/* The first number of a half is never given: 0 is that of what is long ago. */
	for (uint32_t i = first + 1; i <= last; i++) {
		if (!before || is_apart(before, &e->of[i], touches, ns)) {
			before = &e->of[i];
			put_epoch(e, ++to, get(&before->touches), get(&before->ns));
		}
		e->renumbered[i - first] = (uint16_t)to;
	}
	begin(e, to + 1, ns);
	pthread_mutex_unlock(&e->changing);
}

void epochs_renumber(const struct epochs *e, uint16_t *touched)
{
	uint16_t number = epochs_number(touched);

	/* Touched meanwhile: that number is newer. */
	if (number && number / EPOCHS_HALF != epochs_now(e) / EPOCHS_HALF)
		__atomic_compare_exchange_n(touched, &number,
					    e->renumbered[number % EPOCHS_HALF], false,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}
