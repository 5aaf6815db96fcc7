/* SPDX-License-Identifier: BSD-3-Clause */
/* One client of a device, and its requests: each is one flight from its first try to its end.
 *
 * A read or write of a page or two is tried first by a caller who keeps the interpreter lock: to
 * give it away and take it back costs as much as they do.  The try waits for nothing.  What would
 * have to wait, and all larger ones, go on in the second function, whose caller has given the lock
 * away.  Two flights would not do: between them a client that lost its connection could send the
 * request again and write something newer, which the second half would overwrite.
 *
 * Functions return 0 or a negative errno: -ESHUTDOWN, the device is being removed; -EINVAL, the
 * range does not lie inside it; -SUPERSEDED, of a change, see export.h.
 */
#ifndef PRESWAPD_CONNECTION_H
#define PRESWAPD_CONNECTION_H

#include "requests.h"

struct connection {
	struct device *device;
	struct arrival arrival;
	uint64_t life, taker;          /* 0: of a guest */
};

/* -EBUSY: the device is shut to clients. */
int connection_open(struct connection *, struct device *);
/* Not a guest's: it reads for the arrival `taker` on another host, as long as this life lasts. */
void connection_pull(struct connection *, uint64_t life, uint64_t taker);
void connection_close(struct connection *);

/* A read or write under way, in its caller's frame. */
struct transfer {
	struct flight flight;
	struct progress progress;
	uint64_t since;                /* ns; how long it takes counts from the first try on */
	bool in_flight;
};

/* The first of each two fills the transfer in.  At -EAGAIN the second must go on with it. */
int connection_try_read(struct connection *, struct transfer *, void *to, uint64_t count,
			uint64_t offset);
int connection_read(struct connection *, struct transfer *, void *to, uint64_t count,
		    uint64_t offset);
int connection_try_write(struct connection *, struct transfer *, const void *from, uint64_t count,
			 uint64_t offset, unsigned flags);
int connection_write(struct connection *, struct transfer *, const void *from, uint64_t count,
		     uint64_t offset, unsigned flags);

/* These may wait. */
int connection_flush(struct connection *);
int connection_trim(struct connection *, uint64_t count, uint64_t offset, unsigned flags);
int connection_zero(struct connection *, uint64_t count, uint64_t offset, unsigned flags);
/* NBD's extents from `offset` on, `most` at most.  Returns how many, or an error. */
int connection_extents(struct connection *, uint64_t count, uint64_t offset, struct nbd_extent *,
		       unsigned most);

#endif
