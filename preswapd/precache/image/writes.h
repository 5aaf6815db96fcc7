/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes to an image: through to its file, and then what is cached of it is made the same.
 *
 * All of it under the pages' busy mark, held alone: a fill would put back what a write has just replaced.
 * Until it is dropped a reader may meet the page as it was, and nobody was told of the change by then.
 * Where the file has failed nothing is known of the pages, and none of them stays cached.
 *
 * In flight, within the image; functions return 0 or a negative errno.
 */
#ifndef PRESWAPD_WRITES_H
#define PRESWAPD_WRITES_H

#include "image.h"

int writes_write(struct image *, const uint8_t *from, uint64_t count, uint64_t offset, unsigned flags);
/* The whole pages inside a range. */
int writes_trim(struct image *, uint64_t count, uint64_t offset, unsigned flags);
/* -EOPNOTSUPP, if it must be fast: zeros would have to be written. */
int writes_zero(struct image *, uint64_t count, uint64_t offset, unsigned flags);
/* All that was answered is on disk. */
int writes_sync(struct image *);

#endif
