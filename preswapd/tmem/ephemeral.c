#include "ephemeral.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct ephemeral_entry) == 16, "what a page may cost is counted in bytes");

void ephemeral_init(struct ephemeral *e)
{
	*e = (struct ephemeral){0};
	pthread_mutex_init(&e->mutex, NULL);
}

void ephemeral_destroy(struct ephemeral *e)
{
	while (e->first) {
		struct ephemeral_block *next = e->first->next;
		free(e->first);
		e->first = next;
	}
	pthread_mutex_destroy(&e->mutex);
}

static struct ephemeral_block *add_block(struct ephemeral *e)
{
	struct ephemeral_block *b = malloc(sizeof *b);

	if (!b)
		return NULL;
	b->next = NULL;
	b->begin = b->end = 0;
	if (e->last)
		e->last->next = b;
	else
		e->first = b;
	__atomic_fetch_add(&e->bytes, sizeof *b, __ATOMIC_RELAXED);
	return e->last = b;
}

/* `before` is the block before it; NULL: it is the first one. */
static void remove_block(struct ephemeral *e, struct ephemeral_block *before,
			 struct ephemeral_block *b)
{
	if (before)
		before->next = b->next;
	else
		e->first = b->next;
	if (e->last == b)
		e->last = before;
	if (e->swept == b)
		e->swept = NULL;
	__atomic_fetch_sub(&e->bytes, sizeof *b, __ATOMIC_RELAXED);
	free(b);
}

int ephemeral_append(struct ephemeral *e, const struct ephemeral_entry *entry)
{
	pthread_mutex_lock(&e->mutex);
	struct ephemeral_block *b = e->last;
	if (!b || b->end == BLOCK_ENTRIES)
		b = add_block(e);
	int result = -ENOMEM;
	if (b) {
		b->entries[b->end++] = *entry;
		__atomic_fetch_add(&e->entries, 1, __ATOMIC_RELAXED);
		result = b->end % 8 == 0;
	}
	pthread_mutex_unlock(&e->mutex);
	return result;
}

bool ephemeral_take(struct ephemeral *e, struct ephemeral_entry *to)
{
	pthread_mutex_lock(&e->mutex);
	struct ephemeral_block *b = e->first;
	if (b) {
		*to = b->entries[b->begin++];
		__atomic_fetch_sub(&e->entries, 1, __ATOMIC_RELAXED);
		if (b->begin == b->end)
			remove_block(e, NULL, b);
	}
	pthread_mutex_unlock(&e->mutex);
	return b != NULL;
}

static void drop_unwanted(struct ephemeral *e, struct ephemeral_block *b, ephemeral_keep keep,
			  void *ctx)
{
	uint32_t kept = b->begin;

	for (uint32_t i = b->begin; i < b->end; i++)
		if (keep(ctx, &b->entries[i]))
			b->entries[kept++] = b->entries[i];
	__atomic_fetch_sub(&e->entries, b->end - kept, __ATOMIC_RELAXED);
	b->end = kept;
}

static void fill_up(struct ephemeral_block *to, struct ephemeral_block *from)
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

bool ephemeral_sweep(struct ephemeral *e, ephemeral_keep keep, void *ctx)
{
	pthread_mutex_lock(&e->mutex);
	struct ephemeral_block *before = e->swept;
	struct ephemeral_block *b = before ? before->next : e->first;
	if (b) {
		drop_unwanted(e, b, keep, ctx);
		if (before)
			fill_up(before, b);
		if (b->begin == b->end)
			remove_block(e, before, b);
		else
			e->swept = b;
		struct ephemeral_block *at = e->swept;
		b = at ? at->next : e->first;
	}
	if (!b)
		e->swept = NULL;
	pthread_mutex_unlock(&e->mutex);
	return b != NULL;
}
