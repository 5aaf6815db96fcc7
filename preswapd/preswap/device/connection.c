/* SPDX-License-Identifier: BSD-3-Clause */
#include "connection.h"

#include <errno.h>

/* Up to two pages keep the interpreter lock. */
#define SMALL_BYTES (2u * PAGE_BYTES)

int connection_open(struct connection *c, struct device *d)
{
	*c = (struct connection){.device = d};
	return flights_connect(&d->flights, &c->arrival) ? 0 : -EBUSY;
}

void connection_pull(struct connection *c, uint64_t life, uint64_t taker)
{
	c->life = life;
	c->taker = taker;
}

void connection_close(struct connection *c)
{
	flights_disconnect(&c->device->flights);
}

static int check_range(const struct connection *c, uint64_t count, uint64_t offset)
{
	uint64_t size = c->device->pages * PAGE_BYTES;

	return offset > size || count > size - offset ? -EINVAL : 0;
}

/* In flight: the device changes hands only while nothing is.  Who pulls reads on when the guest has gone,
 * and nobody else does; another life of the device is no business of theirs. */
static int admit(const struct connection *c)
{
	const struct device *d = c->device;
	bool is_gone = device_guest(d) == GUEST_GONE;

	if (!c->life)
		return is_gone ? -EIO : 0;
	if (__atomic_load_n(&d->life, __ATOMIC_ACQUIRE) != c->life)
		return -ESHUTDOWN;
	return is_gone && __atomic_load_n(&d->taker, __ATOMIC_ACQUIRE) != c->taker ? -ESHUTDOWN : 0;
}

/* Requests are counted here and not in requests.c, which the server itself writes through too:
 * mkswap is no client's. */

/* --- Reads and writes --------------------------------------------------------------------------- */

/* Whoever only looks what this is, reads no more than that. */
static bool is_look(const struct connection *c, enum flight_kind kind, uint64_t count,
		    uint64_t offset)
{
	uint64_t first = offset / PAGE_BYTES, end = (offset + count + PAGE_BYTES - 1) / PAGE_BYTES;
	const struct zone *zone = &c->device->zone;

	return kind == FLIGHT_LOOKS && zone_has(zone, first) &&
	       zone_run(zone, first, end - first) == end - first;
}

static void note_io(struct connection *c, const struct transfer *t, enum flight_kind kind,
		    uint64_t count, uint64_t offset)
{
	struct flights *flights = &c->device->flights;

	if (!c->life) {
		flights_note_io(flights);
		if (!flights_are_asked(flights) && !is_look(c, kind, count, offset))
			flights_note_asking(flights);
	}
	epochs_count(c->device->epochs, (count + PAGE_BYTES - 1) / PAGE_BYTES, t->since);
}

/* -EAGAIN: it is too long for a try, or would have to wait for older requests. */
static int try_begin(struct connection *c, struct transfer *t, enum flight_kind kind,
		     uint64_t count, uint64_t offset)
{
	struct flights *flights = &c->device->flights;
	int err = check_range(c, count, offset);

	t->progress = (struct progress){0};
	t->in_flight = false;
	t->since = monotonic_ns();
	if (err)
		return err;
	if (count > SMALL_BYTES)
		return -EAGAIN;
	err = flights_try_begin(flights, &t->flight, &c->arrival, kind);
	if (err)
		return err;
	err = admit(c);
	if (err) {
		flights_end(flights, &t->flight);
		return err;
	}
	t->in_flight = true;
	note_io(c, t, kind, count, offset);
	return 0;
}

static int begin(struct connection *c, struct transfer *t, enum flight_kind kind, uint64_t count,
		 uint64_t offset)
{
	struct flights *flights = &c->device->flights;

	if (t->in_flight)
		return 0;
	int err = flights_begin(flights, &t->flight, &c->arrival, kind);
	if (err)
		return err;
	err = admit(c);
	if (err)
		flights_end(flights, &t->flight);
	else
		note_io(c, t, kind, count, offset);
	return err;
}

static int end_read(struct connection *c, struct transfer *t, int err)
{
	/* A life ends also while its pages are read. */
	if (!err && c->life)
		err = admit(c);
	flights_end(&c->device->flights, &t->flight);
	count_up(&c->device->count.read_requests);
	latency_note(&c->device->reads, t->since);
	return err;
}

static int end_write(struct connection *c, struct transfer *t, int err)
{
	flights_end(&c->device->flights, &t->flight);
	count_up(&c->device->count.write_requests);
	latency_note(&c->device->writes, t->since);
	return err;
}

int connection_try_read(struct connection *c, struct transfer *t, void *to, uint64_t count,
			uint64_t offset)
{
	int err = try_begin(c, t, FLIGHT_LOOKS, count, offset);

	if (err)
		return err;
	err = request_read(c->device, to, count, offset, REQUEST_NOWAIT, &t->progress);
	return err == -EAGAIN ? err : end_read(c, t, err);
}

int connection_read(struct connection *c, struct transfer *t, void *to, uint64_t count,
		    uint64_t offset)
{
	int err = begin(c, t, FLIGHT_LOOKS, count, offset);

	if (err)
		return err;
	err = request_read(c->device, to, count, offset, 0, &t->progress);
	return end_read(c, t, err);
}

int connection_try_write(struct connection *c, struct transfer *t, const void *from, uint64_t count,
			 uint64_t offset, unsigned flags)
{
	int err = c->life ? -EROFS : try_begin(c, t, FLIGHT_CHANGES, count, offset);

	if (err)
		return err;
	if (!device_is_open_to_changes(c->device))
		return -EAGAIN;
	err = request_write(c->device, from, count, offset, flags | REQUEST_NOWAIT, &t->progress);
	return err == -EAGAIN ? err : end_write(c, t, err);
}

int connection_write(struct connection *c, struct transfer *t, const void *from, uint64_t count,
		     uint64_t offset, unsigned flags)
{
	int err = begin(c, t, FLIGHT_CHANGES, count, offset);

	if (err)
		return err;
	err = device_change(c->device);
	if (!err)
		err = request_write(c->device, from, count, offset, flags, &t->progress);
	return end_write(c, t, err);
}

/* --- The others --------------------------------------------------------------------------------- */

int connection_flush(struct connection *c)
{
	struct flight mine;
	int err = flights_begin(&c->device->flights, &mine, &c->arrival, FLIGHT_LOOKS);

	if (err)
		return err;
	if (!c->life)
		flights_note_asking(&c->device->flights);
	err = request_flush(c->device);
	flights_end(&c->device->flights, &mine);
	return err;
}

/* A flush and a query of extents do not count as the guest's I/O, see flights.h. */
static int begin_change(struct connection *c, struct flight *mine, uint64_t count, uint64_t offset)
{
	struct flights *flights = &c->device->flights;
	int err = check_range(c, count, offset);

	if (!err)
		err = flights_begin(flights, mine, &c->arrival, FLIGHT_CHANGES);
	if (err)
		return err;
	err = admit(c);
	if (err)
		flights_end(flights, mine);
	else {
		flights_note_io(flights);
		flights_note_asking(flights);
	}
	return err;
}

int connection_trim(struct connection *c, uint64_t count, uint64_t offset, unsigned flags)
{
	struct flight mine;
	int err = c->life ? -EROFS : begin_change(c, &mine, count, offset);

	if (err)
		return err;
	err = device_change(c->device);
	if (!err)
		err = request_trim(c->device, count, offset, flags);
	count_up(&c->device->count.trim_requests);
	flights_end(&c->device->flights, &mine);
	return err;
}

int connection_zero(struct connection *c, uint64_t count, uint64_t offset, unsigned flags)
{
	struct flight mine;
	int err = c->life ? -EROFS : begin_change(c, &mine, count, offset);

	if (err)
		return err;
	err = device_change(c->device);
	if (!err)
		err = request_zero(c->device, count, offset, flags);
	if (err != -EOPNOTSUPP)
		count_up(&c->device->count.trim_requests);
	flights_end(&c->device->flights, &mine);
	return err;
}

int connection_extents(struct connection *c, uint64_t count, uint64_t offset, struct nbd_extent *to,
		       unsigned most)
{
	struct flight mine;
	int err = check_range(c, count, offset);

	if (!err)
		err = flights_begin(&c->device->flights, &mine, &c->arrival, FLIGHT_LOOKS);
	if (err)
		return err;
	err = admit(c);
	size_t found = err ? 0 : request_extents(c->device, count, offset, to, most);
	flights_end(&c->device->flights, &mine);
	return err ? err : (int)found;
}
