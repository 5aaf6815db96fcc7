/* SPDX-License-Identifier: BSD-3-Clause */
/* Pages that other hosts have read, in a store that they share; the file has all of them too.
 *
 * Of an image whose digest is known.  What comes is what the file with that digest has there, so it is
 * believed for as long as the file is the one that was read for the digest: image_is_cached() says that.
 */
#ifndef PRESWAPD_SHARED_H
#define PRESWAPD_SHARED_H

#include "image.h"

#define SHARED_MOST 64u

/* Asks for pages side by side, SHARED_MOST at most.  A bit for each that came into its place in the buffer;
 * in the places of the others anything may lie.  Under their mark.  Where some do not come in time, or have not
 * before, *is_late: a read waits once. */
uint64_t shared_get(struct image *, uint64_t first, uint32_t pages, uint8_t *buffer, bool *is_late);
/* Whether what is set now may be taken. */
bool shared_takes(struct image *);
/* A page as the file has it, for the other hosts.  Never waits. */
void shared_set(struct image *, uint64_t page, const uint8_t *from);
/* A page as the file has it that is not set, as it would not be taken. */
void shared_pass(struct image *);
/* What was set goes out. */
void shared_push(struct image *);

#endif
