/* SPDX-License-Identifier: BSD-3-Clause */
/* One client of an image, and its requests: each is one flight.
 *
 * Functions return 0 or a negative errno: -ESHUTDOWN, the image is not served any more; -EINVAL, the
 * range does not lie inside it; -SUPERSEDED, of a change, see export.h.
 */
#ifndef PRESWAPD_CLIENT_H
#define PRESWAPD_CLIENT_H

#include "image.h"

struct client {
	struct image *image;
	struct arrival arrival;
	uint64_t next;                 /* where its last read ended; atomic */
};

void client_open(struct client *, struct image *);
void client_close(struct client *);
int client_read(struct client *, void *to, uint64_t count, uint64_t offset);
/* These of a writable image only. */
int client_write(struct client *, const void *from, uint64_t count, uint64_t offset, unsigned flags);
int client_flush(struct client *);
int client_trim(struct client *, uint64_t count, uint64_t offset, unsigned flags);
int client_zero(struct client *, uint64_t count, uint64_t offset, unsigned flags);
/* NBD's extents from `offset` on, `most` at most.  Returns how many, or an error. */
int client_extents(struct client *, uint64_t count, uint64_t offset, struct nbd_extent *,
		   unsigned most);

#endif
