/* SPDX-License-Identifier: BSD-3-Clause */
#include "client.h"

#include <errno.h>

#include "reads.h"
#include "writes.h"

/* A client that reads on where it has ended gets so much more cached. */
#define AHEAD_PAGES 32u

void client_open(struct client *c, struct image *i)
{
	*c = (struct client){.image = i, .next = UINT64_MAX};
	flights_connect(&i->flights, &c->arrival);
}

void client_close(struct client *c)
{
	flights_disconnect(&c->image->flights);
}

/* Where nothing is written no request need wait for those of an older connection. */
static int begin(struct client *c, struct flight *mine, enum flight_kind kind, uint64_t count,
		 uint64_t offset)
{
	uint64_t size = c->image->file.size;

	if (offset > size || count > size - offset)
		return -EINVAL;
	return flights_begin(&c->image->flights, mine,
			     c->image->file.is_writable ? &c->arrival : FLIGHTS_OURS, kind);
}

int client_read(struct client *c, void *to, uint64_t count, uint64_t offset)
{
	struct image *i = c->image;
	uint64_t since = monotonic_ns();
	struct flight mine;
	int err = begin(c, &mine, FLIGHT_LOOKS, count, offset);

	if (err)
		return err;
	bool reads_on = __atomic_exchange_n(&c->next, offset + count, __ATOMIC_RELAXED) == offset;
	err = reads_read(i, to, count, offset, reads_on ? AHEAD_PAGES : 0);
	flights_end(&i->flights, &mine);
	flights_note_io(&i->flights);
	count_up(&i->count.read_requests);
	latency_note(&i->read_latency, since);
	return err;
}

int client_write(struct client *c, const void *from, uint64_t count, uint64_t offset, unsigned flags)
{
	struct image *i = c->image;
	uint64_t since = monotonic_ns();
	struct flight mine;
	int err = begin(c, &mine, FLIGHT_CHANGES, count, offset);

	if (err)
		return err;
	err = writes_write(i, from, count, offset, flags);
	flights_end(&i->flights, &mine);
	flights_note_io(&i->flights);
	count_up(&i->count.write_requests);
	latency_note(&i->write_latency, since);
	return err;
}

int client_flush(struct client *c)
{
	struct flight mine;
	int err = begin(c, &mine, FLIGHT_LOOKS, 0, 0);

	if (err)
		return err;
	err = writes_sync(c->image);
	flights_end(&c->image->flights, &mine);
	return err;
}

static int clear(struct client *c, uint64_t count, uint64_t offset, unsigned flags,
		 int (*change)(struct image *, uint64_t, uint64_t, unsigned))
{
	struct flight mine;
	int err = begin(c, &mine, FLIGHT_CHANGES, count, offset);

	if (err)
		return err;
	err = count ? change(c->image, count, offset, flags) : 0;
	flights_end(&c->image->flights, &mine);
	flights_note_io(&c->image->flights);
	return err;
}

int client_trim(struct client *c, uint64_t count, uint64_t offset, unsigned flags)
{
	return clear(c, count, offset, flags, writes_trim);
}

int client_zero(struct client *c, uint64_t count, uint64_t offset, unsigned flags)
{
	return clear(c, count, offset, flags, writes_zero);
}

int client_extents(struct client *c, uint64_t count, uint64_t offset, struct nbd_extent *to,
		   unsigned most)
{
	struct flight mine;
	int err = begin(c, &mine, FLIGHT_LOOKS, count, offset);

	if (err)
		return err;
	int found = file_extents(&c->image->file, count, offset, to, most);
	flights_end(&c->image->flights, &mine);
	return found < 0 ? image_file_error(c->image, found) : found;
}
