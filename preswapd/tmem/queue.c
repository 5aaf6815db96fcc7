/* SPDX-License-Identifier: BSD-3-Clause */
#include "queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "stores.h"

_Static_assert(sizeof(struct queue_entry) == 16, "what a page may cost is counted in bytes");
_Static_assert(POOLS_MAX <= POOL_OF_NOBODY, "nobody has that number");

void queue_init(struct queue *q, struct headroom *headroom)
{
	*q = (struct queue){.headroom = headroom};
	pthread_mutex_init(&q->mutex, NULL);
}

void queue_destroy(struct queue *q)
{
	while (q->first) {
		struct queue_block *next = q->first->next;
		free(q->first);
		q->first = next;
	}
	pthread_mutex_destroy(&q->mutex);
}

static struct queue_block *add_block(struct queue *q)
{
	struct queue_block *b = NULL;

	if (headroom_take_needed(q->headroom, sizeof *b))
		b = malloc(sizeof *b);
	if (!b)
		return NULL;
	b->next = NULL;
	b->begin = b->end = 0;
	if (q->last)
		q->last->next = b;
	else
		q->first = b;
	count_add(&q->bytes, sizeof *b);
	return q->last = b;
}

static void move_cursors(struct queue *q, const struct queue_block *from, struct queue_block *to,
			 uint32_t at)
{
	for (unsigned pool = 0; pool < POOLS_MAX; pool++)
		if (q->cursors[pool].block == from)
			q->cursors[pool] = (struct queue_cursor){to, at};
}

/* `before` is the block before it; NULL: it is the first one. */
static void remove_block(struct queue *q, struct queue_block *before, struct queue_block *b)
{
	if (before)
		before->next = b->next;
	else
		q->first = b->next;
	if (q->last == b)
		q->last = before;
	if (q->swept == b)
		q->swept = NULL;
	if (b->next)
		move_cursors(q, b, b->next, 0);
	else
		move_cursors(q, b, before, before ? before->end : 0);
	count_sub(&q->bytes, sizeof *b);
	free(b);
}

int queue_append(struct queue *q, const struct queue_entry *entry)
{
	pthread_mutex_lock(&q->mutex);
	struct queue_block *b = q->last;
	if (!b || b->end == BLOCK_ENTRIES)
		b = add_block(q);
	int result = -ENOMEM;
	if (b) {
		b->entries[b->end++] = *entry;
		count_up(&q->entries);
		result = b->end % 8 == 0;
	}
	pthread_mutex_unlock(&q->mutex);
	return result;
}

bool queue_take(struct queue *q, struct queue_entry *to)
{
	pthread_mutex_lock(&q->mutex);
	struct queue_block *b = q->first;
	if (b) {
		*to = b->entries[b->begin++];
		count_sub(&q->entries, 1);
		if (b->begin == b->end)
			remove_block(q, NULL, b);
	}
	pthread_mutex_unlock(&q->mutex);
	return b != NULL;
}

/* Those at the front that were taken out as their pools' oldest. */
static void drop_taken(struct queue *q)
{
	struct queue_block *b = q->first;

	while (b->begin < b->end && b->entries[b->begin].pool == POOL_OF_NOBODY) {
		b->begin++;
		count_sub(&q->entries, 1);
	}
	if (b->begin == b->end)
		remove_block(q, NULL, b);
}

enum looked { FOUND, NOT_HERE, NOWHERE };

/* From the pool's cursor on, in one block, which may be stale entries of others only. */
static enum looked look_in_block(struct queue *q, uint32_t pool, struct queue_entry *to)
{
	struct queue_cursor *c = &q->cursors[pool];
	struct queue_block *b = c->block ? c->block : q->first;
	enum looked looked = FOUND;

	if (!b)
		return NOWHERE;
	uint32_t i = c->block && c->at > b->begin ? c->at : b->begin;
	while (i < b->end && b->entries[i].pool != pool)
		i++;
	if (i < b->end) {
		*to = b->entries[i];
		b->entries[i++].pool = POOL_OF_NOBODY;
	} else if (b->next) {
		b = b->next;
		i = 0;
		looked = NOT_HERE;
	} else {
		looked = NOWHERE;
	}
	*c = (struct queue_cursor){b, i};
	if (looked == FOUND && b == q->first)
		drop_taken(q);
	return looked;
}

bool queue_take_of(struct queue *q, uint32_t pool, struct queue_entry *to)
{
	enum looked looked;

	do {
		pthread_mutex_lock(&q->mutex);
		looked = look_in_block(q, pool, to);
		pthread_mutex_unlock(&q->mutex);
	} while (looked == NOT_HERE);
	return looked == FOUND;
}

static void drop_unwanted(struct queue *q, struct queue_block *b, queue_keep keep, void *ctx)
{
	uint32_t kept = b->begin;

	for (uint32_t i = b->begin; i < b->end; i++)
		if (b->entries[i].pool != POOL_OF_NOBODY && keep(ctx, &b->entries[i]))
			b->entries[kept++] = b->entries[i];
	count_sub(&q->entries, b->end - kept);
	b->end = kept;
}

static void fill_up(struct queue_block *to, struct queue_block *from)
{
	uint32_t n = BLOCK_ENTRIES - to->end, there = from->end - from->begin;

	if (n > there)
		n = there;
	memcpy(&to->entries[to->end], &from->entries[from->begin], n * sizeof *to->entries);
	to->end += n;
	memmove(from->entries, &from->entries[from->begin + n],
		(there - n) * sizeof *from->entries);
	from->begin = 0;
	from->end = there - n;
}

bool queue_sweep(struct queue *q, queue_keep keep, void *ctx)
{
	pthread_mutex_lock(&q->mutex);
	struct queue_block *before = q->swept;
	struct queue_block *b = before ? before->next : q->first;
	if (b) {
		drop_unwanted(q, b, keep, ctx);
		/* Entries have moved: whoever looks in this block begins with it again. */
		move_cursors(q, b, before ? before : b, before ? before->end : 0);
		if (before)
			fill_up(before, b);
		if (b->begin == b->end)
			remove_block(q, before, b);
		else
			q->swept = b;
		struct queue_block *at = q->swept;
		b = at ? at->next : q->first;
	}
	if (!b)
		q->swept = NULL;
	pthread_mutex_unlock(&q->mutex);
	return b != NULL;
}
