/* SPDX-License-Identifier: BSD-3-Clause */
#include "client.h"

#include <errno.h>

#include "reads.h"

/* A client that reads on where it has ended gets so much more cached. */
#define AHEAD_PAGES 32u

void client_open(struct client *c, struct image *i)
{
	*c = (struct client){.image = i, .arrival = flights_connect(&i->flights), .next = UINT64_MAX};
}

void client_close(struct client *c)
{
	flights_disconnect(&c->image->flights);
}

/* Reads change nothing, so that none waits for those of an older connection. */
static int begin(struct client *c, struct flight *mine, uint64_t count, uint64_t offset)
{
	uint64_t size = c->image->file.size;

	if (offset > size || count > size - offset)
		return -EINVAL;
	return flights_begin(&c->image->flights, mine, FLIGHTS_OURS);
}

int client_read(struct client *c, void *to, uint64_t count, uint64_t offset)
{
	struct image *i = c->image;
	uint64_t since = monotonic_ns();
	struct flight mine;
	int err = begin(c, &mine, count, offset);

	if (err)
		return err;
	bool reads_on = __atomic_exchange_n(&c->next, offset + count, __ATOMIC_RELAXED) == offset;
	err = reads_read(i, to, count, offset, reads_on ? AHEAD_PAGES : 0);
	flights_end(&i->flights, &mine);
	flights_note_io(&i->flights);
	count_up(&i->count.read_requests);
	latency_note(&i->latency, since);
	return err;
}

int client_extents(struct client *c, uint64_t count, uint64_t offset, struct nbd_extent *to,
		   unsigned most)
{
	struct flight mine;
	int err = begin(c, &mine, count, offset);

	if (err)
		return err;
	int found = file_extents(&c->image->file, count, offset, to, most);
	flights_end(&c->image->flights, &mine);
	return found < 0 ? image_file_error(c->image, found) : found;
}
