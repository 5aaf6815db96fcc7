#include "ephemeral.h"

#include <errno.h>
#include <stdlib.h>

#define SMALLEST_ROOM 1024u

void ephemeral_init(struct ephemeral *e)
{
	*e = (struct ephemeral){0};
	pthread_mutex_init(&e->mutex, NULL);
}

void ephemeral_destroy(struct ephemeral *e)
{
	free(e->ring);
	pthread_mutex_destroy(&e->mutex);
}

static struct ephemeral_entry *at(const struct ephemeral *e, uint64_t i)
{
	return &e->ring[(e->first + i) & (e->room - 1)];
}

static int grow(struct ephemeral *e)
{
	uint64_t room = e->room ? 2 * e->room : SMALLEST_ROOM;
	struct ephemeral_entry *ring = malloc(room * sizeof *ring);

	if (!ring)
		return -ENOMEM;
	for (uint64_t i = 0; i < e->n; i++)
		ring[i] = *at(e, i);
	free(e->ring);
	e->ring = ring;
	e->room = room;
	e->first = 0;
	return 0;
}

int ephemeral_append(struct ephemeral *e, const struct tmem_handle *h, uint64_t seq)
{
	pthread_mutex_lock(&e->mutex);
	int err = e->n == e->room ? grow(e) : 0;
	if (!err)
		*at(e, e->n++) = (struct ephemeral_entry){
			.object = h->object, .index = h->index, .pool = h->pool & 0xffu,
			.seq = ephemeral_seq(seq)};
	pthread_mutex_unlock(&e->mutex);
	return err;
}

bool ephemeral_take(struct ephemeral *e, struct ephemeral_entry *to)
{
	pthread_mutex_lock(&e->mutex);
	bool found = e->n > 0;
	if (found) {
		*to = *at(e, 0);
		e->first = (e->first + 1) & (e->room - 1);
		e->n--;
	}
	pthread_mutex_unlock(&e->mutex);
	return found;
}

void ephemeral_sweep(struct ephemeral *e, bool (*keep)(void *ctx, const struct ephemeral_entry *),
		     void *ctx)
{
	uint64_t kept = 0;

	pthread_mutex_lock(&e->mutex);
	for (uint64_t i = 0; i < e->n; i++)
		if (keep(ctx, at(e, i)))
			*at(e, kept++) = *at(e, i);
	e->n = kept;
	pthread_mutex_unlock(&e->mutex);
}

uint64_t ephemeral_entries(struct ephemeral *e)
{
	pthread_mutex_lock(&e->mutex);
	uint64_t n = e->n;
	pthread_mutex_unlock(&e->mutex);
	return n;
}
