/* SPDX-License-Identifier: BSD-3-Clause */
/* When a page was used last, in sixteen bits: the number of an epoch.
 *
 * All devices of an instance share them.  An epoch ends when a 64th of the pool's pages was touched
 * (put, got, or read from disk), or after a second; where nobody touches a page it does not end.
 * Each knows how many pages had been touched when it began, and when that was: so a page has two
 * ages, one in turns of the pool, which tells what to write back when room is short, and one in
 * seconds, which tells what has been idle.
 *
 * Numbers run through one half of their range and then through the other.  Before they change over,
 * old epochs are merged, so that an age is right to 3 % and a few thousand numbers do for years.
 */
#ifndef PRESWAPD_EPOCHS_H
#define PRESWAPD_EPOCHS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "log16.h"

#define EPOCHS 65536u
#define EPOCHS_HALF (EPOCHS / 2)
#define EPOCHS_A_TURN 64u
/* How long after its last touch a page was read again: 4 steps to a doubling, from 1 s on. */
#define REUSE_STEPS 80u
/* An age in turns ends here, as policies that remember more are no better: with 1, 2 or 4 turns 73, 71 or
 * 70 % of reads were from memory on recorded traffic, and 84, 86 or 86 % of those of a guest whose
 * programs sleep for long. */
#define AGE_TURNS 2u

struct epoch {
	uint64_t touches, ns;          /* when it began; atomic */
};

struct epochs {
	struct epoch *of;              /* by number; 0: long before this process */
	uint32_t now;                  /* the number of the one under way; atomic */
	uint64_t touches;              /* pages touched since the beginning; atomic */
	uint64_t ends_at_touches, ends_at_ns;  /* the one under way; atomic */
	uint64_t turn;                 /* pages in the pool, at least 1; atomic */
	uint64_t reused[REUSE_STEPS];  /* pages read again, by log16(seconds) / 4; atomic */
	pthread_mutex_t changing;      /* which epoch is under way */
	uint16_t *renumbered;          /* of the half before: the new numbers */
};

/* -ENOMEM. */
int epochs_init(struct epochs *);
void epochs_destroy(struct epochs *);
void epochs_set_turn(struct epochs *, uint64_t pages);
/* A new epoch begins: what is touched from now on has its number, or a later one. */
uint16_t epochs_begin(struct epochs *);
/* That many pages will be touched, at that moment. */
void epochs_end_due(struct epochs *, uint64_t ns);

static inline void epochs_count(struct epochs *e, uint64_t pages, uint64_t ns)
{
	uint64_t touches = __atomic_add_fetch(&e->touches, pages, __ATOMIC_RELAXED);

	if (touches >= __atomic_load_n(&e->ends_at_touches, __ATOMIC_RELAXED) ||
	    ns >= __atomic_load_n(&e->ends_at_ns, __ATOMIC_RELAXED))
		epochs_end_due(e, ns);
}

static inline uint16_t epochs_now(const struct epochs *e)
{
	return (uint16_t)__atomic_load_n(&e->now, __ATOMIC_ACQUIRE);
}

static inline uint16_t epochs_number(const uint16_t *touched)
{
	return __atomic_load_n(touched, __ATOMIC_ACQUIRE);
}

/* Of epochs.reused: the step of so many seconds. */
static inline unsigned epochs_reuse_step(double seconds)
{
	unsigned step = seconds < 1 ? 0 : log16_of((uint64_t)seconds) / 4;

	return step < REUSE_STEPS ? step : REUSE_STEPS - 1;
}

/* Counts a page that is read again. */
void epochs_note_reuse(struct epochs *, uint16_t before, uint16_t now);

/* The page is touched now.  Most stores are spared: its neighbours' bytes are shared by threads. */
static inline void epochs_touch(struct epochs *e, uint16_t *touched, bool is_read)
{
	uint16_t before = epochs_number(touched), now = epochs_now(e);

	if (before == now)
		return;
	if (before && is_read)
		epochs_note_reuse(e, before, now);
	__atomic_store_n(touched, now, __ATOMIC_RELEASE);
}

/* Age in 64ths of a turn, at least 1 and at most that of AGE_TURNS. */
uint64_t epochs_age(const struct epochs *, uint16_t number);
/* Seconds since it began: of a page touched in it, at most one too many.  What was touched last before
 * this process is as old as the process. */
double epochs_seconds(const struct epochs *, uint16_t number, uint64_t now_ns);
/* Did it begin at or after that one? */
bool epochs_is_since(const struct epochs *, uint16_t number, uint16_t that);
/* The number of a page that was put so many puts before this process began. */
uint16_t epochs_restored(uint64_t puts);

/* Whether numbers should change over; then epochs_change_over(), and epochs_renumber() for each page
 * of each device before the next time. */
bool epochs_are_scarce(const struct epochs *);
void epochs_change_over(struct epochs *);
void epochs_renumber(const struct epochs *, uint16_t *touched);

#endif
